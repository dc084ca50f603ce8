// The expected result of every test, one file per profile, and how the results
// of a run compare with it.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

// How many tests of a kind have to pass whatever the expectations say, so that
// blessing a run cannot lower the bar.
//
// There are 157 required tests. Four of them, `stale-close-*`, no cache can pass: the origin destroys the connection without
// an answer, and the test then wants a 200 that carries the origin's count of this very request.
const MINIMUM = {
  strict: { required: 153, optimal: 80 }
}

function pathOf (profile) {
  return fileURLToPath(new URL(`${profile}.json`, import.meta.url))
}

/** The expectations of a profile as a map of test id to entry, or null. */
export function loadExpectations (profile) {
  const path = pathOf(profile)
  if (!existsSync(path)) return null
  return new Map(Object.entries(JSON.parse(readFileSync(path, 'utf8'))))
}

/** Writes the results of a run as what to expect, keeping the whys there are. */
export function bless (profile, verdicts) {
  const old = loadExpectations(profile) ?? new Map()
  const lines = Array.from(verdicts, ([id, verdict]) => {
    const entry = makeEntry(verdict, old.get(id)?.why)
    return `  ${JSON.stringify(id)}: ${formatEntry(entry)}`
  })
  writeFileSync(pathOf(profile), `{\n${lines.join(',\n')}\n}\n`)
}

function makeEntry ({ kind, result }, why) {
  if (result === 'pass') return { kind, result }
  if (why === undefined && kind === 'check') return { kind, result }
  return { kind, result, why: why ?? '' }
}

// One test to a line, so that a change of one test is a change of one line.
function formatEntry (entry) {
  const fields = Object.entries(entry).map(([name, value]) => `"${name}": ${JSON.stringify(value)}`)
  return `{${fields.join(', ')}}`
}

/**
 * Whether a test's result is worse than expected. A test nothing is known
 * about yet is expected to pass, unless it only asks how the cache behaves.
 */
export function isWorse (expected, { kind, result }) {
  const expectedResult = expected?.result ?? (kind === 'check' ? 'fail' : 'pass')
  return expectedResult === 'pass' && result !== 'pass'
}

/**
 * Compares a run with what was expected. Returns the problems (what fails the
 * run, a map of test id to message) and the notes (what is merely different:
 * { id, better, message }).
 */
export function compare (profile, expectations, verdicts) {
  const problems = new Map()
  const notes = []
  for (const [id, verdict] of verdicts) {
    const expected = expectations.get(id)
    const problem = problemOf(expected, verdict)
    if (problem) problems.set(id, problem)
    else if (expected.result !== verdict.result) notes.push(noteOf(id, expected, verdict))
  }
  for (const id of expectations.keys()) {
    if (!verdicts.has(id)) problems.set(id, 'is expected, but the suite has no such test')
  }
  for (const [kind, problem] of shortfalls(profile, verdicts)) problems.set(kind, problem)
  return { problems, notes }
}

function problemOf (expected, verdict) {
  if (!expected) return `has no expectation, run --bless (now ${verdict.result})`
  if (isWorse(expected, verdict)) return `was pass, is now ${verdict.result} (${verdict.detail})`
  if (verdict.kind !== 'check' && expected.result !== 'pass' && !expected.why) {
    return `is expected not to pass (${expected.result}), but its why is empty`
  }
}

function noteOf (id, expected, { kind, result }) {
  const better = kind !== 'check' && result === 'pass'
  return {
    id,
    better,
    message: better
      ? `is better than expected, run --bless (was ${expected.result})`
      : `has changed: was ${expected.result}, is now ${result}`
  }
}

function shortfalls (profile, verdicts) {
  return Object.entries(MINIMUM[profile] ?? {}).flatMap(([kind, minimum]) => {
    const passing = Array.from(verdicts.values())
      .filter(verdict => verdict.kind === kind && verdict.result === 'pass').length
    if (passing >= minimum) return []
    return [[kind, `tests passing: ${passing}, where this profile needs at least ${minimum}`]]
  })
}
