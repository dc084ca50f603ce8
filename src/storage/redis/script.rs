//! The scripts that run inside Redis, where several steps have to be one. The server remembers them by their hash, and may forget them at any time.

use std::sync::LazyLock;

use redis::{Cmd, Value};

use super::connection::Connection;
use super::failure::Failure;

/// A script. Its text begins with the flags that Redis 7 and Valkey read.
pub(super) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $($file:literal)+) => {
        pub(super) static $name: Script = Script {
            text: concat!($(include_str!(concat!("lua/", $file, ".lua"))),+),
            hash: LazyLock::new(|| redis::Script::new($name.text).get_hash().to_owned()),
        };
    };
}

script!(HELLO, "epoch" "hello");
script!(APPEND, "epoch" "append");
script!(TRIM, "epoch" "trim");
script!(PUT, "storing" "marker" "put");
script!(SWAP, "storing" "swap");
script!(REMOVE, "freeing" "marker" "remove");
script!(DROP, "freeing" "drop");
script!(RELEASE, "freeing" "release");

/// A script with its keys and arguments.
pub(super) struct Call {
    script: &'static Script,
    command: Cmd,
}

impl Script {
    pub(super) fn call(&'static self, keys: &[&str]) -> Call {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*self.hash).arg(keys.len()).arg(keys);
        Call { script: self, command }
    }
}

impl Call {
    #[must_use]
    pub(super) fn bytes(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.command.arg(argument.as_ref());
        self
    }

    #[must_use]
    pub(super) fn number(mut self, argument: impl Into<u128>) -> Self {
        self.command.arg(argument.into().to_string());
        self
    }

    /// Runs it by its hash, and by its text where the server has forgotten it.
    pub(super) async fn run(&self, connection: &Connection) -> Result<Value, Failure> {
        match connection.ask(&self.command).await {
            Err(failure) if failure.is_missing_script => connection.ask(&self.with_text()).await,
            answer => answer,
        }
    }

    fn with_text(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(self.script.text);
        for word in self.command.args_iter().skip(2) {
            if let redis::Arg::Simple(word) = word {
                command.arg(word);
            }
        }
        command
    }
}
