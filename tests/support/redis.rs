//! Real Redis servers, each on a port of its own and in a folder of its own, for tests to kill, stop, restart and misconfigure. None outlives its test,
//! even if that is killed.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::ports::{free_port, local};

/// How a server is started. Without more: nothing is written to disk, anybody may do anything, and memory isn't bounded.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    arguments: Vec<String>,
    password: Option<String>,
}

/// A running server, or one that was killed and can be started again. It ends with this.
pub struct RedisServer {
    setup: Setup,
    port: u16,
    folder: PathBuf,
    keeper: Option<Keeper>,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(String),
    Error(String),
    Number(i64),
    /// `None` where there is nothing.
    Bytes(Option<Vec<u8>>),
    List(Vec<Reply>),
}

impl Setup {
    /// Settings as `redis.conf` has them: `set("maxmemory", "2mb")`. A value of several words is several arguments.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.arguments.push(format!("--{name}"));
        self.arguments.extend(value.split(' ').map(str::to_owned));
        self
    }

    /// The password of the default user.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.set("requirepass", password)
    }

    /// A user beside the default one, with a rule as `ACL SETUSER` takes it: `user("shop", "on >secret ~larder:* +get")`.
    pub fn user(self, name: &str, rule: &str) -> Self {
        self.set("user", &format!("{name} {rule}"))
    }

    /// What it holds is there again after a restart: each change is on disk before it is answered.
    pub fn durable(self) -> Self {
        self.set("appendonly", "yes").set("appendfsync", "always")
    }

    /// Follows another server.
    pub fn replica_of(self, primary: &RedisServer) -> Self {
        self.set("replicaof", &format!("127.0.0.1 {}", primary.port)).set("repl-diskless-sync-delay", "0")
    }

    /// Starts a server, and waits until it takes connections. `None` where the program isn't installed, and a message that can't be missed; with
    /// `LARDER_REQUIRE_REDIS` set that is a panic, so that `scripts/test` can't pass without these tests.
    pub fn start(self) -> Option<RedisServer> {
        program()?;
        for _ in 0..20 {
            let (port, folder) = (free_port(), new_folder());
            let mut server = RedisServer { setup: self.clone(), port, folder, keeper: None };
            match server.launch().and_then(|()| server.wait_until_ready()) {
                Ok(()) => return Some(server),
                // Another test was faster.
                Err(said) if said.contains("Address already in use") => {}
                Err(said) if said.contains(NO_TLS) => {
                    skip("a server that was built with TLS");
                    return None;
                }
                Err(said) => panic!("the Redis server doesn't start: {said}"),
            }
        }
        panic!("no port for a Redis server");
    }
}

impl RedisServer {
    /// One without any settings of its own; `None` as [`Setup::start`] says.
    pub fn start() -> Option<Self> {
        Setup::default().start()
    }

    pub fn address(&self) -> SocketAddr {
        local(self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:port`, with the password if there is one.
    pub fn url(&self) -> String {
        let password = self.setup.password.iter().map(|password| format!(":{password}@")).collect::<String>();
        format!("redis://{password}{}", self.address())
    }

    /// Runs one command as the default user, on a connection of its own.
    ///
    /// # Panics
    /// If there is no answer in 5 seconds.
    pub fn command<A: AsRef<[u8]>>(&self, words: &[A]) -> Reply {
        self.try_command(words).unwrap_or_else(|error| panic!("the Redis server at {}: {error}", self.address()))
    }

    /// The same, and an error where there is no answer.
    pub fn try_command<A: AsRef<[u8]>>(&self, words: &[A]) -> io::Result<Reply> {
        let patience = Duration::from_secs(5);
        let stream = TcpStream::connect_timeout(&self.address(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut connection = BufReader::new(stream);
        if let Some(password) = &self.setup.password {
            ask(&mut connection, &[b"AUTH", password.as_bytes()])?;
        }
        let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
        ask(&mut connection, &words)
    }

    /// One value of `INFO`.
    pub fn info(&self, name: &str) -> String {
        let text = self.command(&["INFO", "everything"]).text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("INFO has no {name}")).to_owned()
    }

    /// How many keys there are in the first database.
    pub fn keys(&self) -> i64 {
        self.command(&["DBSIZE"]).number()
    }

    /// Waits until a replica has all that its primary has now.
    pub fn wait_until_synced(&self) {
        let is_synced = || {
            let text = self.command(&["INFO", "replication"]).text();
            text.contains("master_link_status:up") && text.contains("master_sync_in_progress:0")
        };
        wait_until("the replica is in sync", is_synced);
    }

    /// A replica becomes a primary.
    pub fn promote(&self) {
        assert_eq!(self.command(&["REPLICAOF", "NO", "ONE"]), Reply::Status("OK".into()));
    }

    /// `SIGSTOP`: connections are still accepted by the system, and nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// `SIGCONT`.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// `SIGKILL`: connections break, new ones are refused. Nothing happens if it is dead already.
    pub fn kill(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.end(true);
        }
    }

    /// Starts it again after [`kill`](Self::kill), on the same port, with the same settings and what is on disk.
    pub fn revive(&mut self) {
        self.revive_at_once();
        if let Err(said) = self.wait_until_ready() {
            panic!("the Redis server doesn't start again: {said}");
        }
    }

    /// The same without waiting until it is ready, for what happens while it loads.
    pub fn revive_at_once(&mut self) {
        assert!(self.keeper.is_none(), "the server is running");
        if let Err(said) = self.launch() {
            panic!("the Redis server doesn't start again: {said}");
        }
    }

    /// Kills it and starts it again.
    pub fn restart(&mut self) {
        self.kill();
        self.revive();
    }

    /// The program's id.
    pub fn id(&self) -> u32 {
        self.keeper.as_ref().map(|keeper| keeper.server).expect("the server is running")
    }

    /// What it wrote into its log since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// As if this process were killed: nothing is done about the server but what the system does.
    pub fn let_go(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.shell.stdin.take());
        }
    }

    fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} reaches the server");
    }

    fn launch(&mut self) -> Result<(), String> {
        let log = self.folder.join("log");
        fs::write(&log, "").map_err(|error| error.to_string())?;
        let program = program().ok_or("redis-server isn't there")?;
        self.keeper = Some(Keeper::start(program, &self.folder, &self.arguments())?);
        Ok(())
    }

    fn arguments(&self) -> Vec<String> {
        let folder = self.folder.display();
        let first = format!("--port {} --bind 127.0.0.1 --dir {folder} --save {{}} --protected-mode no", self.port);
        // An empty value is a word of its own.
        let mut all: Vec<String> = first.split(' ').map(|word| word.replace("{}", "")).collect();
        all.extend(self.setup.arguments.iter().cloned());
        all
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let log = self.log();
            let is_ready = log.contains("Ready to accept connections");
            let has_failed =
                ["FATAL", "Failed listening", "Address already in use", NO_TLS].iter().any(|w| log.contains(w));
            match (is_ready, has_failed || Instant::now() > end) {
                (true, _) => return Ok(()),
                (false, true) => return Err(log),
                (false, false) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.end(false);
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

impl Reply {
    /// Status or bytes, as a text.
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) => text.clone(),
            Self::Bytes(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?} is no text"),
        }
    }

    pub fn number(&self) -> i64 {
        let Self::Number(number) = self else { panic!("{self:?} is no number") };
        *number
    }
}

/// A shell between test and server: it ends the server, and removes its folder, as soon as the test lets go of the pipe to it, which the system does
/// for a test that is killed.
struct Keeper {
    shell: Child,
    server: u32,
}

const KEEP: &str = r#"
folder=$1; shift
"$@" </dev/null >>"$folder/log" 2>&1 &
echo "$!"
exec >/dev/null
read -r word
kill -9 "$!" 2>/dev/null
wait
if [ "$word" != keep ]; then rm -rf "$folder"; fi
"#;

impl Keeper {
    fn start(program: &str, folder: &Path, arguments: &[String]) -> Result<Self, String> {
        let mut command = Command::new("sh");
        command.args(["-c", KEEP, "keeper"]).arg(folder).arg(program).args(arguments);
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut shell = shell.map_err(|error| format!("sh: {error}"))?;
        let mut line = String::new();
        let output = shell.stdout.take().ok_or("the shell has no output")?;
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        let server = line.trim().parse().map_err(|_| format!("the shell said {line:?}"))?;
        Ok(Self { shell, server })
    }

    /// Returns when the server is gone.
    fn end(mut self, keeps_folder: bool) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            let word: &[u8] = if keeps_folder { b"keep\n" } else { b"\n" };
            drop(pipe.write_all(word));
        }
        drop(self.shell.wait());
    }
}

/// The program: `LARDER_REDIS_SERVER`, or what is installed of Redis and Valkey.
fn program() -> Option<&'static str> {
    static FOUND: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let named = std::env::var("LARDER_REDIS_SERVER").ok();
        let names = named.into_iter().chain(["redis-server", "valkey-server"].map(str::to_owned));
        let runs = |name: &String| {
            let tried = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            tried.is_ok_and(|status| status.success())
        };
        names.into_iter().find(runs)
    });
    if found.is_none() {
        skip("redis-server or valkey-server (`apt-get install redis-server`)");
    }
    found.as_deref()
}

/// What a server says that can't.
const NO_TLS: &str = "Failed finding TLS support";

fn skip(wanted: &str) {
    assert!(std::env::var_os("LARDER_REQUIRE_REDIS").is_none(), "these tests need {wanted}");
    // Past the capture of the test harness.
    let told = format!("\n*** SKIPPED, NOT PASSED: a test needs {wanted} ***\n\n");
    drop(io::stderr().write_all(told.as_bytes()));
}

fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("larder-redis-{}-{number}", std::process::id()));
    // Of an earlier process with the same id.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("a folder for the server");
    folder
}

/// Looks again and again, for 20 seconds at most.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ask(connection: &mut BufReader<TcpStream>, words: &[&[u8]]) -> io::Result<Reply> {
    let mut sent = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        sent.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        sent.extend_from_slice(word);
        sent.extend_from_slice(b"\r\n");
    }
    connection.get_mut().write_all(&sent)?;
    answer(connection)
}

fn answer(connection: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let junk = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("no answer of RESP: {line:?}"));
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let said = line.trim_end();
    let (kind, rest) = said.split_at_checked(1).ok_or_else(|| junk(&line))?;
    let number = || rest.parse::<i64>().map_err(|_| junk(said));
    Ok(match kind {
        "+" => Reply::Status(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Number(number()?),
        "$" => Reply::Bytes(match usize::try_from(number()?) {
            Err(_) => None,
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                connection.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Some(bytes)
            }
        }),
        "*" => Reply::List((0..number()?).map(|_| answer(connection)).collect::<io::Result<_>>()?),
        _ => return Err(junk(said)),
    })
}
