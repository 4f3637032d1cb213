//! What shells are told of the command line, and the manual.

use std::process::Command;

use crate::support::*;

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = ok(&["completions", shell]).out;
        for word in ["hydrate", "check-config"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let said = run(&["completions", "cmd"]);
    assert!(said.code == 2 && said.err.contains("elvish"), "{}", said.err);
}

#[cfg(unix)]
#[test]
fn bash_completes_a_flag_with_its_script() {
    let complete = "source <(\"$0\" completions bash)
        COMP_WORDS=(partial-sync serve --check-c) COMP_CWORD=2
        name=$(complete -p partial-sync); name=${name#*-F }
        ${name%% *} partial-sync --check-c serve
        echo \"${COMPREPLY[@]}\"";
    let mut command = Command::new("bash");
    command.args(["-c", complete, env!("CARGO_BIN_EXE_partial-sync")]);
    assert_eq!(Said::of(command.output().unwrap()).out, "--check-config\n");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let place = Place::new();
    let folder = place.folder.path();
    ok(&["man", folder.to_str().unwrap()]);
    for page in [
        "partial-sync.1",
        "partial-sync-serve.1",
        "partial-sync-token-create.1",
    ] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    let said = run(&["man", &place.path("nothing/there")]);
    assert!(
        said.code == 1 && said.err.contains("write the manual pages to"),
        "{}",
        said.err
    );
}
