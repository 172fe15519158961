use super::*;

fn command(line: &str) -> Command {
    match parse_from(line.split(' ')).unwrap() {
        Parsed::Command(parsed) => parsed.1,
        Parsed::Text(text) => panic!("{text}"),
    }
}

fn error(line: &str) -> String {
    let error = parse_from(line.split(' ')).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn the_lines_that_engines_send_are_understood() {
    for line in [
        "stockade --systemd-cgroup create --bundle B --pid-file F --no-pivot --no-new-keyring --preserve-fds 2 \
         --console-socket S ID",
        "stockade --root R --log L --log-format json --debug --rootless=auto create --bundle B --pid-file F ID",
        "stockade create ID --bundle B",
        "stockade --log-format=json --log F start ID",
        "stockade run -d --keep --no-subreaper ID -b B",
        "stockade kill --all ID 9",
        "stockade kill ID",
        "stockade delete --force ID",
        "stockade spec --bundle B --rootless",
        "stockade check --format json",
        "stockade state ID",
        "stockade pause ID",
        "stockade top --once --interval 500ms",
        "stockade update --resources - ID",
        "stockade update --resources=FILE ID",
        "stockade update ID --memory 64m --memory-swap -1 --cpu-quota -1 --pids-limit -1",
        "stockade events --stats ID",
        "stockade events --interval 1m30s ID",
        "stockade resume ID",
        "stockade list --format=json",
        "stockade list -q",
        "stockade ps --format json ID",
        "stockade ps ID --format json",
        "stockade ps ID -ef",
        "stockade ps ID aux --sort pid",
        "stockade --rootless start ID",
    ] {
        command(&line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

#[test]
fn options_may_stand_before_or_after_the_id() {
    for line in [
        "stockade create ID --pid-file F --root R",
        "stockade run ID --detach -b B",
        "stockade start ID --debug",
        "stockade state ID --root R",
        "stockade kill ID --all 9",
        "stockade kill ID 9 --all",
        "stockade delete ID --force",
        "stockade events ID --stats",
        "stockade update ID --pids-limit 5",
        "stockade pause ID --log-format json",
        "stockade ps ID --format json",
        "stockade logs ID --root R",
    ] {
        command(line);
    }
}

#[test]
fn version_is_in_runcs_form() {
    let Parsed::Text(text) = parse_from(["stockade", "--version"]).unwrap() else { panic!() };
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(format!("stockade version {}", version::RUNTIME).as_str()));
    assert_eq!(lines.next(), Some(format!("spec: {}", crate::oci::SPEC_VERSION).as_str()));
}

#[test]
fn mistakes_are_explained_in_one_line() {
    assert!(error("stockade frobnicate").contains("frobnicate"));
    assert!(error("stockade create --no-such-flag x").contains("--no-such-flag"));
    assert!(error("stockade create").contains("ID"));
    assert!(error("stockade events --interval 0s ID").contains("greater than 0"));
    assert!(error("stockade events --interval soon ID").contains("500ms"));
    assert!(error("stockade").contains("no command"));
}

/// Lines of help texts that show a command.
fn examples() -> Vec<(String, String)> {
    let mut root = definition();
    root.build();
    let of = |command: &clap::Command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
        lines.map(|line| (command.get_name().to_owned(), line.to_owned())).collect::<Vec<_>>()
    };
    [&root].into_iter().chain(root.get_subcommands()).flat_map(of).collect()
}

#[test]
fn every_command_that_does_something_has_examples() {
    let with_examples: Vec<String> = examples().into_iter().map(|(command, _)| command).collect();
    for command in definition().get_subcommands().map(clap::Command::get_name) {
        let is_refused = ["checkpoint", "restore", "mounts"].contains(&command);
        assert_eq!(with_examples.iter().any(|with| with == command), !is_refused, "{command}");
    }
}

#[test]
fn examples_are_commands_that_are_understood() {
    for (command, line) in examples() {
        let mut parts = line.split([';', '|', '>', '#']).map(str::trim);
        let ours = parts.find(|part| part.starts_with("stockade "));
        let words: Vec<&str> = ours.unwrap_or_else(|| panic!("{line}")).split_whitespace().collect();
        assert!(command == "stockade" || words.contains(&command.as_str()), "{line}");
        if let Err(error) = parse_from(words) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn a_command_is_not_mistaken_for_the_value_of_an_option_nor_a_value_for_it() {
    assert!(matches!(command("stockade --root run create ID"), Command::Create(_)));
    assert!(matches!(command("stockade --log=start --root delete state run"), Command::State(_)));
    assert!(matches!(command("stockade exec start run"), Command::Exec(_)));
    assert!(error("stockade --root run").contains("create"), "all commands are named");
    assert!(error("stockade list create").contains("create"));
    let Parsed::Text(help) = parse_from(["stockade", "run", "--help"]).unwrap() else { panic!() };
    assert!(help.contains("Usage: stockade run"), "{help}");
}

#[test]
fn a_command_says_of_itself_what_the_list_of_commands_says() {
    let (list, mut whole) = (definition(), definition());
    whole.build();
    for command in list.get_subcommands() {
        let about = |command: &clap::Command| command.get_about().map(ToString::to_string);
        let built = whole.find_subcommand(command.get_name()).unwrap();
        assert_eq!(about(built), about(command), "{}", command.get_name());
    }
}
