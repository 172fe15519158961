//! `process`: arguments, environment, working directory, user, terminal and single numbers.

use std::fs;
use std::io::IsTerminal;
use std::mem::zeroed;

use anyhow::Result;
use nix::unistd::{getcwd, getgroups, getresgid, getresuid};
use serde_json::Value;

use crate::config::{at, strings};
use crate::findings::Findings;

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    findings.equal_lists("process.args", &args, &strings(config, "process.args"));
    let found: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    findings.equal_lists("process.env", &found, &environment(config));
    let cwd = getcwd()?.display().to_string();
    findings.equal("process.cwd", "", cwd.as_str(), at(config, "process.cwd").as_str().unwrap_or("/"));
    user(config, findings)?;
    numbers(config, findings);
    terminal(config, findings);
    Ok(())
}

/// The environment that config.json asks for, with the HOME that programs expect.
fn environment(config: &Value) -> Vec<String> {
    let mut env = strings(config, "process.env");
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let uid = at(config, "process.user.uid").as_u64().unwrap_or(0).to_string();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let home = fields.into_iter().find(|fields| fields.get(2) == Some(&uid.as_str()));
        env.push(format!("HOME={}", home.and_then(|fields| fields.get(5).copied()).unwrap_or("/")));
    }
    env
}

fn user(config: &Value, findings: &mut Findings) -> Result<()> {
    let number = |name: &str| at(config, &format!("process.user.{name}")).as_u64();
    let (uids, gids) = (getresuid()?, getresgid()?);
    for (kind, found) in
        [("real", uids.real.as_raw()), ("effective", uids.effective.as_raw()), ("saved", uids.saved.as_raw())]
    {
        findings.equal("process.user.uid", kind, u64::from(found), number("uid").unwrap_or(0));
    }
    for (kind, found) in
        [("real", gids.real.as_raw()), ("effective", gids.effective.as_raw()), ("saved", gids.saved.as_raw())]
    {
        findings.equal("process.user.gid", kind, u64::from(found), number("gid").unwrap_or(0));
    }
    // SAFETY: umask takes and returns a number.
    let umask = unsafe { libc::umask(0) };
    // SAFETY: as above.
    unsafe { libc::umask(umask) };
    let octal = |mask: u64| format!("{mask:#o}");
    findings.equal("process.user.umask", "", octal(umask.into()), octal(number("umask").unwrap_or(0o022)));
    let mut found: Vec<u64> = getgroups()?.iter().map(|gid| gid.as_raw().into()).collect();
    let groups = at(config, "process.user.additionalGids").as_array();
    let mut wanted: Vec<u64> = groups.into_iter().flatten().filter_map(Value::as_u64).collect();
    // The kernel keeps them sorted, by what they are outside of the user namespace.
    wanted.sort_unstable();
    found.sort_unstable();
    findings.equal_lists("process.user.additionalGids", &found, &wanted);
    Ok(())
}

fn numbers(config: &Value, findings: &mut Findings) {
    // SAFETY: the option takes no argument.
    let found = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } == 1;
    let wanted = at(config, "process.noNewPrivileges").as_bool().unwrap_or(false);
    findings.equal("process.noNewPrivileges", "", found, wanted);
    if let Some(wanted) = at(config, "process.oomScoreAdj").as_i64() {
        match fs::read_to_string("/proc/self/oom_score_adj") {
            Ok(found) => {
                findings.equal("process.oomScoreAdj", "", found.trim().to_owned(), wanted.to_string());
            }
            Err(error) => findings.unseen("process.oomScoreAdj", error),
        }
    }
}

fn terminal(config: &Value, findings: &mut Findings) {
    let wanted = at(config, "process.terminal").as_bool().unwrap_or(false);
    let streams = [
        ("standard input", std::io::stdin().is_terminal()),
        ("standard output", std::io::stdout().is_terminal()),
        ("standard error", std::io::stderr().is_terminal()),
    ];
    for (name, found) in streams {
        let what = format!("that {name} is a terminal");
        findings.equal("process.terminal", &what, found, wanted);
    }
    let size = at(config, "process.consoleSize");
    if !(wanted && size.is_object()) {
        return;
    }
    // SAFETY: a winsize of zeroes is one, and TIOCGWINSZ fills it.
    let found = unsafe {
        let mut found: libc::winsize = zeroed();
        libc::ioctl(0, libc::TIOCGWINSZ, &raw mut found);
        found
    };
    let found = format!("{} high and {} wide", found.ws_row, found.ws_col);
    findings.equal(
        "process.consoleSize",
        "",
        found,
        format!("{} high and {} wide", size["height"], size["width"]),
    );
}
