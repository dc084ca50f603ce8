//! The command line.

use std::path::PathBuf;

use larder_peers::setup::Subject;

pub const USAGE: &str = "\
usage: peers [--quick] [--rounds N] [--seconds N] [--connections N] [--workloads ID,..] [--subjects ID,..]
             [--out DIRECTORY] [--docs DIRECTORY] [--server-core N] [--client-core N] [--list]

  --quick        two rounds of a second each, and fewer keys: shows that all of it works, and no more
  --rounds       interleaved rounds, 9 by default
  --seconds      of each subject in each round, 1 by default
  --connections  of wrk, 64 by default
  --workloads    those with these beginnings, such as `hits` or `hits-200`; all by default
  --subjects     these beside `bare`; all by default
  --out          where peers.md, peers.json and peers.svg go
  --docs         the same, and peers.md there is written between its markers only
  --list         prints workloads and subjects";

#[derive(Clone, Debug)]
pub struct Arguments {
    pub quick: bool,
    pub rounds: usize,
    pub seconds: u64,
    pub connections: usize,
    pub workloads: Vec<String>,
    pub subjects: Vec<Subject>,
    pub out: Option<PathBuf>,
    pub docs: Option<PathBuf>,
    pub server_core: usize,
    pub client_core: usize,
    pub list: bool,
}

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            quick: false,
            rounds: 9,
            seconds: 1,
            connections: 64,
            workloads: Vec::new(),
            subjects: Subject::ALL.into(),
            out: None,
            docs: None,
            server_core: 0,
            client_core: 1,
            list: false,
        };
        let (mut rounds, mut seconds) = (None, None);
        while let Some(flag) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{flag} needs a value after it\n{USAGE}"));
            match flag.as_str() {
                "--quick" => arguments.quick = true,
                "--list" => arguments.list = true,
                "--rounds" => rounds = Some(number(&value()?)?),
                "--seconds" => seconds = Some(number(&value()?)? as u64),
                "--connections" => arguments.connections = number(&value()?)?,
                "--workloads" => arguments.workloads = value()?.split(',').map(str::to_owned).collect(),
                "--subjects" => arguments.subjects = subjects(&value()?)?,
                "--out" => arguments.out = Some(value()?.into()),
                "--docs" => arguments.docs = Some(value()?.into()),
                "--server-core" => arguments.server_core = number(&value()?)?,
                "--client-core" => arguments.client_core = number(&value()?)?,
                _ => return Err(format!("{flag} is not a flag of this program\n{USAGE}")),
            }
        }
        if arguments.quick {
            (arguments.rounds, arguments.seconds) = (2, 1);
        }
        arguments.rounds = rounds.unwrap_or(arguments.rounds).max(1);
        arguments.seconds = seconds.unwrap_or(arguments.seconds).max(1);
        Ok(arguments)
    }

    pub fn wants(&self, workload: &str) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|beginning| workload.starts_with(beginning.as_str()))
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn subjects(list: &str) -> Result<Vec<Subject>, String> {
    let named = list.split(',').map(|id| {
        let subject = Subject::ALL.into_iter().find(|subject| subject.id() == id);
        subject.ok_or_else(|| format!("{id} is none of the subjects; --list has them"))
    });
    let named = named.collect::<Result<Vec<_>, _>>()?;
    Ok(Subject::ALL.into_iter().filter(|subject| *subject == Subject::Bare || named.contains(subject)).collect())
}
