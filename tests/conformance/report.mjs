// Compares the results of a run with what is expected, or makes them what is
// expected, and prints the summary. Arguments: PROFILE=RESULTS_FILE, for each
// profile that was run. Exits with 1 if anything is worse than it should be.

import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

import { bless, compare, loadExpectations } from './expectations.mjs'

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    bless: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
    out: { type: 'string' }
  }
})

const runs = positionals.map(argument => {
  const [profile, path] = argument.split(/=(.*)/s)
  return { profile, verdicts: new Map(Object.entries(JSON.parse(readFileSync(path, 'utf8')))) }
})

if (options.out !== undefined) writeResults()
if (options.bless) runs.forEach(run => bless(run.profile, run.verdicts))

const reports = runs.map(makeReport)
reports.forEach(printDetails)
reports.forEach(printSummary)
const failed = sum(reports.map(report => report.problems.size))
console.log(`${sum(reports.map(countUnaffected))} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0

function writeResults () {
  const all = Object.fromEntries(runs.map(run => [run.profile, Object.fromEntries(run.verdicts)]))
  writeFileSync(options.out, `${JSON.stringify(all, null, 2)}\n`)
}

function makeReport ({ profile, verdicts }) {
  const expectations = loadExpectations(profile)
  return {
    profile,
    verdicts,
    expectations,
    ...compare(profile, expectations ?? new Map(), verdicts)
  }
}

function printDetails (report) {
  const { profile, expectations, problems, notes } = report
  // Without any expectations there is one thing to say, not one for each test.
  if (expectations) {
    for (const [id, problem] of problems) console.log(`${profile}: FAILED ${id} ${problem}`)
  }
  for (const note of notes) console.log(`${profile}: ${note.id} ${note.message}`)
  if (options.verbose || process.stdout.isTTY) printNotPassing(report)
}

function printNotPassing ({ profile, verdicts, expectations }) {
  for (const [id, { kind, result, detail }] of verdicts) {
    if (kind === 'check' || result === 'pass') continue
    const why = expectations?.get(id)?.why || detail
    console.log(`${profile}: ${kind} ${id}: ${result}: ${why}`)
  }
}

function printSummary ({ profile, verdicts, expectations, problems, notes }) {
  const counts = [['required', 'required'], ['optimal', 'optimal'], ['checks', 'check']]
    .map(([label, kind]) => `${label} ${countPassing(verdicts, kind)}`)
    .join(', ')
  const outcome = expectations
    ? describeOutcome(problems, notes)
    : 'no expectations yet, run --bless'
  console.log(`${profile}: ${counts} (${outcome})`)
}

function countPassing (verdicts, kind) {
  const all = Array.from(verdicts.values()).filter(verdict => verdict.kind === kind)
  return `${all.filter(verdict => verdict.result === 'pass').length}/${all.length}`
}

function describeOutcome (problems, notes) {
  const better = notes.filter(note => note.better).length
  const changed = notes.length - better
  const parts = []
  if (problems.size > 0) parts.push(`${problems.size} failed`)
  if (better > 0) parts.push(`${better} better than expected, run --bless`)
  if (changed > 0) parts.push(`${changed} changed`)
  return parts.join(', ') || 'as expected'
}

function countUnaffected ({ verdicts, problems }) {
  return Array.from(verdicts.keys()).filter(id => !problems.has(id)).length
}

function sum (numbers) {
  return numbers.reduce((total, number) => total + number, 0)
}
