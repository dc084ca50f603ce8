// Runs the suite, or one test of it, through a proxy that is already running.
// Started by scripts/conformance, which says what the options are.

import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

import { isWorse, loadExpectations } from './expectations.mjs'
import { dependenciesOf, describe, judge, loadSuite, makeRunner } from './suite.mjs'

// Up to this many surprising tests are noise, and run again one by one; with
// more than that it would take too long, and a few at a time will do.
const FEW = 30
const AT_ONCE_WHEN_MANY = 10

const { values: options } = parseArgs({
  options: {
    suite: { type: 'string' },
    base: { type: 'string' },
    profile: { type: 'string' },
    results: { type: 'string' },
    id: { type: 'string' }
  }
})

const suite = await loadSuite(options.suite)
const run = makeRunner(suite, options.base)
process.exitCode = options.id === undefined ? await runAll() : await runOne(options.id)

async function runAll () {
  say(`running ${suite.tests.length} tests`)
  const results = await run(suite.tests)
  const again = findSurprises(results)
  if (again.length > 0) {
    say(`running ${again.length} again that did worse than expected`)
    const atOnce = again.length > FEW ? AT_ONCE_WHEN_MANY : 1
    for (const [id, result] of await run(again, atOnce)) results.set(id, result)
  }
  const verdicts = judge(suite.tests, results)
  writeFileSync(options.results, JSON.stringify(Object.fromEntries(verdicts), null, 2))
  return 0
}

// The tests to give a second chance before they are judged, as a busy machine
// is enough to fail a few: those that failed although they, or tests that
// depend on them, were expected to pass.
function findSurprises (results) {
  const expectations = loadExpectations(options.profile) ?? new Map()
  const verdicts = judge(suite.tests, results)
  const byId = new Map(suite.tests.map(test => [test.id, test]))
  const again = new Set()

  function visit (id) {
    if (results.get(id) !== true) again.add(id)
    dependenciesOf(byId.get(id)).forEach(visit)
  }

  for (const [id, verdict] of verdicts) {
    if (isWorse(expectations.get(id), verdict)) visit(id)
  }
  return suite.tests.filter(test => again.has(test.id))
}

// For debugging: the suite prints every request and response of the test. Its
// dependencies are not run, so this shows the test's own result.
async function runOne (id) {
  const test = suite.tests.find(test => test.id === id)
  if (!test) {
    say(`the suite has no test ${id} for a proxy`)
    return 2
  }
  const results = await run([{ ...test, dump: true }])
  console.log(`${options.profile}: ${id}: ${describe(results.get(id))}`)
  return results.get(id) === true ? 0 : 1
}

function say (message) {
  console.error(`${options.profile}: ${message}`)
}
