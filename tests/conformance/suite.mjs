// The public suite of HTTP cache tests, as installed by scripts/conformance:
// which tests there are, how to run them, and what their results amount to.

import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

// As many tests at a time as the suite's own command runs; most of a test is
// spent in pauses of three seconds.
const AT_ONCE = 100

// A request without an answer must end the test, not hang the run.
const REQUEST_TIMEOUT_MS = 20_000

/** Loads the suite from its installed folder. */
export async function loadSuite (folder) {
  const load = path => import(pathToFileURL(join(folder, path)).href)
  // tests/surrogate-control.mjs is left out on purpose: Surrogate-Control is
  // in no standard that a cache could conform to.
  const { default: groups } = await load('tests/index.mjs')
  return {
    tests: groups.flatMap(group => group.tests).filter(test => !test.browser_only),
    client: await load('client/test.mjs'),
    config: await load('client/config.mjs'),
    // The suite's own fetch: some tests depend on how it joins header lines.
    fetch: createRequire(join(folder, 'package.json'))('node-fetch')
  }
}

export function kindOf (test) {
  return test.kind ?? 'required'
}

/**
 * A function that runs the tests it is given through the proxy at `base` and
 * returns a map of test id to the suite's own result: true, or [error, message].
 *
 * This calls the suite's client for one test rather than its runTests, which
 * keeps every test it was ever given and so cannot be called twice.
 */
export function makeRunner ({ client, config, fetch }, base) {
  config.setFetch((url, init) => fetch(url, { timeout: REQUEST_TIMEOUT_MS, ...init }))
  config.setBaseUrl(base)
  config.setUseBrowserCache(false)

  async function runOne (test) {
    // The client refuses a test it already holds a result for.
    delete client.testResults[test.id]
    // It also writes the dates and headers of a run into the test, and some
    // tests share those arrays; each run starts from a copy of its own.
    await client.makeCacheTest(structuredClone(test))
    return [test.id, client.testResults[test.id]]
  }

  return async function run (tests, atOnce = AT_ONCE) {
    const results = new Map()
    for (let i = 0; i < tests.length; i += atOnce) {
      const chunk = await Promise.all(tests.slice(i, i + atOnce).map(runOne))
      chunk.forEach(([id, result]) => results.set(id, result))
    }
    return results
  }
}

/**
 * What the suite's results amount to, as a map of test id to
 * { kind, result, detail }, in the order of the suite. A test passes when its
 * own result is true and all it depends on, directly or not, passes as well;
 * until that does, its result says nothing and is 'dependency'.
 */
export function judge (tests, results) {
  const byId = new Map(tests.map(test => [test.id, test]))
  const verdicts = new Map()

  function verdictOf (id) {
    if (!verdicts.has(id)) verdicts.set(id, makeVerdict(byId.get(id)))
    return verdicts.get(id)
  }

  function makeVerdict (test) {
    const kind = kindOf(test)
    const failed = dependenciesOf(test).filter(id => verdictOf(id).result !== 'pass')
    if (failed.length > 0) {
      return { kind, result: 'dependency', detail: `depends on ${failed.join(', ')}` }
    }
    if (results.get(test.id) === true) return { kind, result: 'pass' }
    return { kind, result: 'fail', detail: describe(results.get(test.id)) }
  }

  // By suite order, whatever order the dependencies were reached in.
  return new Map(tests.map(test => [test.id, verdictOf(test.id)]))
}

export function dependenciesOf (test) {
  return test.depends_on ?? []
}

export function describe (result) {
  return result === true ? 'pass' : result.join(': ')
}
