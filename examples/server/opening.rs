//! Opens the shop's SQLite file and fills a new one; a file that isn't the shop's is left as it is.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, SqlitePool};

use crate::seed;

/// Stands in the header of the file ("shop" in ASCII) and tells it from anybody else's.
const APPLICATION_ID: i64 = 0x7368_6F70;

/// To be raised when the tables or the made-up rows change.
const SCHEMA_VERSION: i64 = 2;

pub async fn open(path: &Path) -> Result<SqlitePool, Problem> {
    let options = SqliteConnectOptions::new().filename(prepare(path)?).create_if_missing(true);
    check_or_fill(&options).await?;

    // Write-ahead logging lets readers and the writer work side by side. It is switched on only
    // now because that changes the file, which had to be known as ours first.
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal);
    Ok(SqlitePoolOptions::new().max_connections(4).connect_with(options).await?)
}

/// The path is made absolute because SQLite has its own meaning for names such as `:memory:`.
fn prepare(path: &Path) -> Result<PathBuf, Problem> {
    let path = std::path::absolute(path).map_err(|error| Problem::Path(error.to_string()))?;
    if path.is_dir() {
        return Err(Problem::Path("it is a folder, not a file".to_owned()));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| Problem::Path(format!("its folder cannot be made: {error}")))?;
    }
    Ok(path)
}

async fn check_or_fill(options: &SqliteConnectOptions) -> Result<(), Problem> {
    let mut connection = options.connect().await?;
    // Taking the write lock first keeps a second server from filling the same file.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    if is_empty(&mut transaction).await? {
        eprintln!("First start: filling {} ...", options.get_filename().display());
        seed::fill(&mut transaction).await?;
    } else {
        check(&mut transaction).await?;
    }
    // An old file is signed again because only a real write shows that it can be written.
    sign(&mut transaction).await?;
    transaction.commit().await?;
    Ok(connection.close().await?)
}

async fn is_empty(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let objects: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(connection).await?;
    Ok(objects == 0)
}

async fn sign(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    // A PRAGMA takes no parameters; both numbers are our own constants.
    let header = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};");
    sqlx::raw_sql(AssertSqlSafe(header)).execute(connection).await?;
    Ok(())
}

async fn check(connection: &mut SqliteConnection) -> Result<(), Problem> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    if application != APPLICATION_ID {
        return Err(Problem::Foreign);
    }
    if version != SCHEMA_VERSION {
        return Err(Problem::OtherVersion(version));
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
    if verdict == "ok" { Ok(()) } else { Err(Problem::Damaged) }
}

/// Why the data cannot be used; displayed as what is wrong and what to do about it.
pub enum Problem {
    Path(String),
    Foreign,
    OtherVersion(i64),
    Damaged,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Problem::Database(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Path(what) => write!(f, "{what}. Choose another file with --data PATH."),
            Problem::Foreign => f.write_str(
                "it is the database of another program, and was left as it is. \
                 Choose another file with --data PATH.",
            ),
            Problem::OtherVersion(version) => write!(
                f,
                "it was made by another version of this example (its format is {version}, needed \
                 is {SCHEMA_VERSION}). Delete it, or choose another file with --data PATH.",
            ),
            Problem::Damaged => f.write_str(
                "it is damaged. Delete it to start afresh, or choose another file with \
                 --data PATH.",
            ),
            Problem::Database(error) => f.write_str(&in_words(error)),
        }
    }
}

fn in_words(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code());
    let extended: i32 = code.and_then(|code| code.parse().ok()).unwrap_or(0);
    // The low byte of SQLite's extended result code is the kind of error.
    match extended & 0xff {
        5 | 6 => "another program has locked it. Stop that program, or choose another file with \
                  --data PATH."
            .to_owned(),
        3 | 8 | 10 | 14 => "the file or its folder cannot be read and written. Check its \
                            permissions, or choose another file with --data PATH."
            .to_owned(),
        11 => Problem::Damaged.to_string(),
        13 => "the disk is full.".to_owned(),
        26 => "it is not an SQLite database, and was left as it is. Choose another file with \
               --data PATH."
            .to_owned(),
        _ => error.to_string(),
    }
}
