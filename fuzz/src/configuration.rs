//! Configuration: a text is read or refused, and refused with places that are in it; and what was read can be used.
//!
//! An input is a TOML text.

use larder::{CacheLayer, Config, ConfigError, RequestHead};

/// What nobody knows, as a section and as a field.
const UNKNOWN: &str = "some_unknown_section";

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A byte order mark means nothing at the beginning only, and there are going to be lines before it.
    let text = text.trim_start_matches('\u{feff}');
    match text.parse::<Config>() {
        Ok(config) => accepted(text, config),
        Err(error) => refused(text, &error),
    }
}

fn refused(text: &str, error: &ConfigError) {
    assert!(!error.problems().is_empty(), "a refusal says what is wrong");
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in error.problems() {
        let line =
            lines.get(problem.line - 1).unwrap_or_else(|| panic!("{problem:?} is in no line of {}", lines.len()));
        assert!(
            (1..=line.chars().count() + 1).contains(&problem.column),
            "{problem:?} is outside of its line {line:?}"
        );
        assert!(!problem.message.is_empty());
        let shown = problem.to_string();
        assert!(shown.starts_with(&format!("configuration:{}:{}: ", problem.line, problem.column)), "{shown}");
        assert!(shown.ends_with('^'), "it points to its place: {shown}");
    }
    // A comment in front makes nothing right.
    assert!(format!("# a comment\n{text}").parse::<Config>().is_err());
}

fn accepted(text: &str, config: Config) {
    for same in [format!("# a comment\n{text}"), format!("{text}\n# a comment")] {
        assert!(same.parse::<Config>().is_ok(), "a comment changes nothing");
    }
    if !text.contains('\r') {
        assert!(text.replace('\n', "\r\n").parse::<Config>().is_ok(), "line ends mean nothing");
    }
    for more in [format!("{UNKNOWN} = 1\n{text}"), format!("{text}\n[{UNKNOWN}]\nx = 1\n")] {
        let error = more.parse::<Config>().expect_err("what is unknown is refused");
        assert!(error.problems().iter().any(|problem| problem.field == UNKNOWN), "by its name: {error}");
    }
    usable(config);
}

fn usable(config: Config) {
    let user = |head: &RequestHead<'_>| head.headers.get("x-user").map(|user| user.as_bytes().to_vec());
    let config = config.principal("user", user);
    let layer = match CacheLayer::from_config(&config) {
        Ok(layer) => layer,
        Err(error) => {
            let named = |problem: &larder::Problem| problem.field.contains("principal");
            assert!(error.problems().iter().all(named), "all but a principal is known when the text is read: {error}");
            return;
        }
    };
    // A store of its own can't be reloaded; without one, the same text again changes nothing.
    if let Ok(changes) = layer.handle().reload(&config) {
        assert!(changes.is_empty(), "the same text again: {changes}");
    }
}
