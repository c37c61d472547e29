//! Which label and which event follow from what was done to a node.

use reprise_runtime::{Error, Result};

use super::super::status::There;
use super::super::{Said, UNFINISHED, UNFIT};
use super::event::Event;
use super::member::{LABEL, Member};

/// Tells how an installation ended. The label follows what works on the node: the version
/// that was to be installed, or else what is `there`.
///
/// # Errors
/// Those of the installation.
pub(in super::super) fn install(
    node: &str,
    version: &str,
    done: Result<Said>,
    there: impl FnOnce() -> Result<There>,
) -> Result<Said> {
    let good = matches!(&done, Ok(said) if said.code == 0);
    let there = if good {
        Ok(There::Works(version.to_owned()))
    } else {
        there()
    };
    let labelled = there.and_then(|there| {
        let member = Member::of(node)?;
        let changed = match &there {
            There::Works(version) => member.offer(Some(version))?,
            There::Nothing => member.offer(None)?,
            // A kubelet that is restarted ends pods whose node selector no longer fits.
            There::Runs => false,
        };
        Ok((member, there, changed))
    });
    let mut telling = Telling::of(done);
    match labelled {
        Ok((member, there, changed)) => {
            if changed {
                telling.line(label(node, there != There::Nothing));
            }
            let event = installed(&telling.done, version, &there, changed);
            telling.event(&member, event);
        }
        Err(error) => telling.unlabelled(node, &error),
    }
    telling.done
}

/// Removes from a node from which its label was taken first, and tells how that ended.
///
/// # Errors
/// The label is still there, or those of the removal.
pub(in super::super) fn uninstall(
    node: &str,
    remove: impl FnOnce() -> Result<Said>,
) -> Result<Said> {
    let member = Member::of(node).and_then(|member| {
        let changed = member.offer(None)?;
        Ok((member, changed))
    });
    let (member, changed) = member.map_err(|mut error| {
        error.message = format!(
            "The label {LABEL} may still bring pods to {node}, so nothing was removed: {}",
            error.message
        );
        error
    })?;
    let mut telling = Telling::of(remove());
    if changed {
        telling.line(label(node, false));
    }
    let event = removed(&telling.done);
    telling.event(&member, event);
    telling.done
}

fn label(node: &str, there: bool) -> String {
    if there {
        format!("{node} has the label {LABEL}=true: pods can come")
    } else {
        format!("{node} has no label {LABEL}: no pods come")
    }
}

/// The event that follows from an installation; none if there is no news.
fn installed(done: &Result<Said>, version: &str, there: &There, relabelled: bool) -> Option<Event> {
    let stays = match there {
        There::Works(old) => format!(". {old} is installed, works, and stays"),
        There::Runs => ". Pods run under what is there; the label stays with them".to_owned(),
        There::Nothing => String::new(),
    };
    match done {
        Ok(said) if said.code == UNFIT => {
            let why = said.findings.join("; ");
            let message = format!("Reprise {version} is not for this node: {why}{stays}");
            Some(Event::warning("RepriseNotFit", message))
        }
        Ok(said) => (said.changed || relabelled).then(|| {
            let message = format!("Reprise {version} is installed");
            Event::normal("RepriseInstalled", message)
        }),
        Err(error) => {
            let message = format!("Reprise {version} was not installed: {error}{stays}");
            Some(Event::warning("RepriseInstallFailed", message))
        }
    }
}

/// The event that follows from a removal.
fn removed(done: &Result<Said>) -> Option<Event> {
    match done {
        // How many they are changes; the words, and so the event, do not.
        Ok(said) if said.code == UNFINISHED => Some(Event::warning(
            "RepriseStays",
            "Pods still run under Reprise on this node; it stays until the last of them is \
             deleted",
        )),
        Ok(said) => said
            .changed
            .then(|| Event::normal("RepriseRemoved", "Reprise was removed from this node")),
        Err(error) => {
            let message = format!("Reprise was not removed: {error}");
            Some(Event::warning("RepriseRemovalFailed", message))
        }
    }
}

/// What was done, to which is added what of it could be told.
struct Telling {
    done: Result<Said>,
}

impl Telling {
    fn of(done: Result<Said>) -> Self {
        Self { done }
    }

    fn line(&mut self, line: String) {
        match &mut self.done {
            Ok(said) => said.note(line),
            Err(error) => error.detail.push(line),
        }
    }

    /// The label is what counts: an event that is lost changes nothing.
    fn event(&mut self, member: &Member, event: Option<Event>) {
        if let Some(Err(error)) = event.map(|event| member.tell(&event)) {
            self.line(format!("no event tells of it: {error}"));
        }
    }

    /// What was done to the node is kept; it is a failure, so that it is tried again.
    fn unlabelled(&mut self, node: &str, error: &Error) {
        self.line(format!(
            "what was done here is kept, but the label {LABEL} of {node} could not be \
             brought in line with it: {error}"
        ));
        if let Ok(said) = &mut self.done
            && said.code == 0
        {
            said.code = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u8, changed: bool) -> Result<Said> {
        Ok(Said {
            code,
            changed,
            ..Said::default()
        })
    }

    fn unfit() -> Result<Said> {
        let findings = vec!["criu: none".to_owned(), "kernel: 4.4 is too old".to_owned()];
        Ok(Said {
            code: UNFIT,
            findings,
            ..Said::default()
        })
    }

    #[test]
    fn an_installation_is_told_once() {
        let has = There::Works("2.0.0".to_owned());
        let told = |changed, relabelled| {
            installed(&said(0, changed), "2.0.0", &has, relabelled).map(|event| event.reason)
        };
        assert_eq!(told(true, true), Some("RepriseInstalled"));
        assert_eq!(told(true, false), Some("RepriseInstalled"));
        assert_eq!(told(false, true), Some("RepriseInstalled"));
        assert_eq!(told(false, false), None);
    }

    #[test]
    fn a_node_that_is_not_fit_is_told_with_its_findings() {
        let event = installed(&unfit(), "2.0.0", &There::Nothing, true).unwrap();
        assert_eq!((event.kind, event.reason), ("Warning", "RepriseNotFit"));
        let words = "Reprise 2.0.0 is not for this node: criu: none; kernel: 4.4 is too old";
        assert_eq!(event.message, words);
        let old = There::Works("1.0.0".to_owned());
        let event = installed(&unfit(), "2.0.0", &old, false).unwrap();
        assert_eq!(
            event.message,
            format!("{words}. 1.0.0 is installed, works, and stays")
        );
        let event = installed(&unfit(), "2.0.0", &There::Runs, false).unwrap();
        assert!(
            event.message.ends_with("the label stays with them"),
            "{event:?}"
        );
    }

    #[test]
    fn failures_have_the_errors_words() {
        let failed = Err(Error::internal("No space"));
        let event = installed(&failed, "2.0.0", &There::Nothing, false).unwrap();
        assert_eq!(event.reason, "RepriseInstallFailed");
        assert_eq!(event.message, "Reprise 2.0.0 was not installed: No space");
        let event = removed(&failed).unwrap();
        assert_eq!(event.reason, "RepriseRemovalFailed");
    }

    #[test]
    fn a_removal_that_waits_always_has_the_same_words() {
        let event = removed(&said(UNFINISHED, false)).unwrap();
        assert_eq!((event.kind, event.reason), ("Warning", "RepriseStays"));
        assert_eq!(removed(&said(0, true)).unwrap().reason, "RepriseRemoved");
        assert_eq!(removed(&said(0, false)), None);
    }

    #[test]
    fn without_the_label_an_installation_is_not_done() {
        let error = Error::internal("Timeout");
        let mut telling = Telling::of(said(0, true));
        telling.unlabelled("node-1", &error);
        let done = telling.done.unwrap();
        assert_eq!(done.code, 1);
        assert!(done.notes[0].contains("Timeout"), "{done:?}");
        let mut telling = Telling::of(unfit());
        telling.unlabelled("node-1", &error);
        assert_eq!(telling.done.unwrap().code, UNFIT);
    }
}
