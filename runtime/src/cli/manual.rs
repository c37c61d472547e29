//! What the command line says of itself: completions for shells, man pages. Both
//! are made from the one description that parses it, so that they cannot be wrong.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use reprise_runtime::Result;
use reprise_runtime::error::Doing;

/// A script that completes the commands, for a shell.
pub(super) fn completions(mut cli: Command, shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli, "reprise", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `reprise.1`, and a page for each command, into `dir`; says which.
///
/// # Errors
/// I/O.
pub(super) fn pages(cli: Command, dir: &Path) -> Result<String> {
    let doing = || format!("Cannot write man pages into {}", dir.display());
    std::fs::create_dir_all(dir).doing(doing())?;
    clap_mangen::generate_to(cli, dir).doing(doing())?;
    Ok(format!("Written: {}/reprise*.1\n", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_a_page_and_a_completion() {
        let dir = tempfile::tempdir().unwrap();
        let cli = super::super::Cli::command();
        pages(cli.clone(), &dir.path().join("man1")).unwrap();
        let script = completions(cli.clone(), Shell::Bash);
        for command in cli.get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = command.get_name();
            let page = dir.path().join(format!("man1/reprise-{name}.1"));
            let page = std::fs::read_to_string(&page).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
            assert!(script.contains(&format!(",{name})")), "{name}");
        }
    }
}
