//! Subjects as running servers: a Rust server with what it stores in, or a proxy with its origin. All of a subject shares one core.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use http::Method;
use larder_peers::setup::{Setup, Subject};
use serde::Deserialize;

use crate::client::Client;
use crate::process::{Process, on_core};

pub struct Server {
    pub setup: Setup,
    pub address: SocketAddr,
    /// That of the server which has the handler.
    control: SocketAddr,
    processes: Vec<Process>,
    /// What ends with the server.
    directory: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Listening {
    address: SocketAddr,
    control: SocketAddr,
}

impl Server {
    pub fn start(setup: &Setup, core: usize) -> Result<Self, String> {
        let mut setup = setup.clone();
        let mut processes = Vec::new();
        if setup.subject.needs_redis() {
            let (redis, url) = redis(&setup, core)?;
            processes.push(redis);
            setup.store = Some(url);
        }
        if !setup.subject.is_proxy() {
            let (process, listening) = rust(&setup, core)?;
            processes.push(process);
            let Listening { address, control } = listening;
            return Ok(Self { setup, address, control, processes, directory: None });
        }
        // The origin does the handler's work for any key.
        let origin = Setup { subject: Subject::Bare, working: true, gzip: false, ..setup.clone() };
        let (process, origin) = rust(&origin, core)?;
        processes.push(process);
        let directory = directory()?;
        let address = free_address()?;
        let command = match setup.subject {
            Subject::Varnish => varnish(&setup, &directory, address, origin.address, core),
            _ => nginx(&setup, &directory, address, origin.address, core),
        };
        let server = Self { setup, address, control: origin.control, processes, directory: Some(directory) };
        server.with(command?)
    }

    fn with(mut self, mut command: Command) -> Result<Self, String> {
        let log = self.directory.as_ref().expect("a proxy has a directory").join("output");
        let output = fs::File::create(&log).map_err(|error| error.to_string())?;
        command.stdout(output.try_clone().map_err(|error| error.to_string())?).stderr(output);
        let mut process = Process::start(command)?;
        let listening = wait_for(self.address, &mut process);
        self.processes.push(process);
        listening.map_err(|error| format!("{error}: {}", fs::read_to_string(&log).unwrap_or_default()))?;
        Ok(self)
    }

    pub fn cpu(&self) -> Duration {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Bytes in memory; with nginx, which keeps contents in files, those as well, by their blocks.
    pub fn memory(&self) -> u64 {
        let files = match (self.setup.subject, &self.directory) {
            (Subject::Nginx, Some(directory)) => on_disk(&directory.join("cache")),
            _ => 0,
        };
        files + self.processes.iter().map(Process::memory).sum::<u64>()
    }

    /// How often the handler was called.
    pub fn calls(&self) -> Result<u64, String> {
        let answer = Client::new(self.control).get("/calls", &[])?;
        std::str::from_utf8(&answer.body).ok().and_then(|text| text.parse().ok()).ok_or("no number".into())
    }

    pub fn purger(&self) -> Purger {
        let (address, method, path, fields) = match self.setup.subject {
            Subject::Varnish => (self.address, "PURGE", "/item/", vec![]),
            Subject::Nginx => (self.address, "GET", "/item/", vec![("x-purge", "1".into())]),
            _ => (self.control, "POST", "/purge/", vec![]),
        };
        Purger { client: Client::new(address), method: method.parse().expect("a method"), path, fields }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.processes.clear();
        if let Some(directory) = &self.directory {
            drop(fs::remove_dir_all(directory));
        }
    }
}

/// Makes a cache forget keys.
pub struct Purger {
    client: Client,
    method: Method,
    path: &'static str,
    fields: Vec<(&'static str, String)>,
}

impl Purger {
    pub fn purge(&mut self, key: u64) -> Result<(), String> {
        let answer = self.client.send(self.method.clone(), &format!("{}{key}", self.path), &self.fields)?;
        answer.status.is_success().then_some(()).ok_or(format!("a purge was answered {}", answer.status))
    }
}

fn rust(setup: &Setup, core: usize) -> Result<(Process, Listening), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("server");
    let mut command = on_core(core, program);
    command.arg(serde_json::to_string(setup).map_err(|error| error.to_string())?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start(command)?;
    let mut line = String::new();
    let output = process.child().stdout.take().ok_or("it is piped")?;
    BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
    let listening =
        serde_json::from_str(&line).map_err(|_| format!("the server of {} said {line:?}", setup.subject.id()))?;
    Ok((process, listening))
}

fn redis(setup: &Setup, core: usize) -> Result<(Process, String), String> {
    let address = free_address()?;
    let mut command = on_core(core, "redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", "", "--appendonly", "no"]);
    command.args(["--maxmemory", &setup.capacity.to_string(), "--maxmemory-policy", "allkeys-lru"]);
    command.stdout(Stdio::null());
    let mut process = Process::start(command)?;
    wait_for(address, &mut process)?;
    Ok((process, format!("redis://{address}/")))
}

fn varnish(
    setup: &Setup,
    directory: &Path,
    address: SocketAddr,
    origin: SocketAddr,
    core: usize,
) -> Result<Command, String> {
    let vcl = include_str!("../../../config/varnish.vcl")
        .replace("{HOST}", &origin.ip().to_string())
        .replace("{PORT}", &origin.port().to_string())
        .replace("{COMPRESSION}", if setup.gzip { "set beresp.do_gzip = true;" } else { "" });
    let file = directory.join("peers.vcl");
    fs::write(&file, vcl).map_err(|error| error.to_string())?;
    let mut command = on_core(core, "varnishd");
    command.arg("-F").args(["-j", "none", "-a", &address.to_string()]);
    command.arg("-n").arg(directory.join("work")).arg("-f").arg(file);
    command.arg("-s").arg(format!("malloc,{}", setup.capacity));
    command.args(["-p", "thread_pools=1", "-p", "thread_pool_min=100", "-p", "thread_pool_max=5000"]);
    Ok(command)
}

fn nginx(
    setup: &Setup,
    directory: &Path,
    address: SocketAddr,
    origin: SocketAddr,
    core: usize,
) -> Result<Command, String> {
    // It has no purges, and Debian's module for them crashes; but a request can have it ask anew, and keep the answer.
    let purges = if setup.stamped { "proxy_cache_bypass $http_x_purge;" } else { "" };
    let compression = if setup.gzip { "gzip on; gzip_types application/json; gzip_vary on;" } else { "" };
    let configuration = include_str!("../../../config/nginx.conf")
        .replace("{DIRECTORY}", &directory.display().to_string())
        .replace("{MEBIBYTES}", &(setup.capacity >> 20).to_string())
        .replace("{ORIGIN}", &origin.to_string())
        .replace("{ADDRESS}", &address.to_string())
        .replace("{COMPRESSION}", compression)
        .replace("{PURGES}", purges);
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration).map_err(|error| error.to_string())?;
    let mut command = on_core(core, "nginx");
    command.arg("-c").arg(file).arg("-p").arg(directory).arg("-e").arg(directory.join("error.log"));
    Ok(command)
}

/// In memory, where the system has such a place: nginx has nothing else than files.
fn directory() -> Result<PathBuf, String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let parent = Path::new("/dev/shm");
    let parent = if parent.is_dir() { parent.to_owned() } else { std::env::temp_dir() };
    let name = format!("larder-peers-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = parent.join(name);
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}

fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}

fn wait_for(address: SocketAddr, process: &mut Process) -> Result<(), String> {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if process.has_ended() || start.elapsed() > Duration::from_secs(20) {
            return Err(format!("nobody listens on {address}"));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn on_disk(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => on_disk(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}
