//! Background tasks under watch: a task that fails, panics or ends is logged by its name and restarted, and the others continue.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::error;

use crate::status::{TaskReport, TaskState};

/// Pause before a restart; it doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
/// A task that worked for longer than this restarts with [`PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The states of all background tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<watch::Sender<Vec<TaskReport>>>);

impl Tasks {
    /// The states, as they change.
    pub fn reports(&self) -> watch::Receiver<Vec<TaskReport>> {
        self.0.subscribe()
    }

    /// A task by its name, which reports its own state.
    pub fn pulse(&self, name: &'static str) -> Pulse {
        let pulse = Pulse { name, tasks: self.clone() };
        pulse.well();
        pulse
    }
}

/// Reports the state of one task.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: &'static str,
    tasks: Tasks,
}

impl Pulse {
    /// A turn went well.
    pub fn well(&self) {
        self.say(TaskState::Well, None);
    }

    /// A turn failed, and will run again.
    pub fn failing(&self, why: String) {
        self.say(TaskState::Failing, Some(why));
    }

    /// It ended, or a part of it panicked: a fault of the program.
    pub fn down(&self, why: String) {
        self.say(TaskState::Down, Some(why));
    }

    /// A turn ended with this failure.
    pub fn turn(&self, failed: Option<String>) {
        match failed {
            Some(why) => self.failing(why),
            None => self.well(),
        }
    }

    fn say(&self, state: TaskState, why: Option<String>) {
        self.tasks.0.send_if_modified(|tasks| {
            let failed = u64::from(state != TaskState::Well);
            match tasks.iter_mut().find(|task| task.name == self.name) {
                // Most turns report the same as the turn before.
                Some(task) if failed == 0 && task.state == state => return false,
                Some(task) => {
                    *task = TaskReport { name: self.name, state, failures: task.failures + failed, error: why }
                }
                None => tasks.push(TaskReport { name: self.name, state, failures: failed, error: why }),
            }
            true
        });
    }
}

/// Runs a task until `stop` turns true.
pub async fn watched<F: Future<Output = ()>>(pulse: Pulse, stop: watch::Receiver<bool>, begin: impl FnMut() -> F) {
    watched_with(PAUSE, pulse, stop, begin).await;
}

async fn watched_with<F: Future<Output = ()>>(
    first_pause: Duration,
    pulse: Pulse,
    mut stop: watch::Receiver<bool>,
    mut begin: impl FnMut() -> F,
) {
    let mut pause = first_pause;
    loop {
        let began = Instant::now();
        let why = match caught(begin()).await {
            // A service that could not start is dropped: no stop signal will come.
            Ok(()) if *stop.borrow() || stop.has_changed().is_err() => return,
            Ok(()) => "it ended by itself".to_owned(),
            Err(panic) => panic,
        };
        if began.elapsed() > LONGEST_PAUSE {
            pause = first_pause;
        }
        error!(task = pulse.name, "{why}; it restarts in {} s, and the other tasks continue", pause.as_secs());
        pulse.down(why);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The result of a future; an error has the message of its panic. Its data must not be used any more.
///
/// # Errors
/// The message of the panic.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| words(panic.as_ref()))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}; report this with the log", text.unwrap_or("nobody knows how"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_whose_service_is_gone_ends_quietly() {
        let (tasks, (stop, stopped), mut begun) = (Tasks::default(), watch::channel(false), 0);
        drop(stop);
        watched(tasks.pulse("a"), stopped, || {
            begun += 1;
            async {}
        })
        .await;
        assert_eq!((begun, tasks.reports().borrow()[0].state), (1, TaskState::Well));
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_told_and_begun_anew() {
        let (tasks, (stop, stopped)) = (Tasks::default(), watch::channel(false));
        let (other, pulse) = (tasks.pulse("other"), tasks.pulse("task"));
        other.failing("no lock".to_owned());
        let (begun, mut seen) = watch::channel(0);
        let begin = || {
            let (pulse, begun, mut stopped) = (pulse.clone(), begun.clone(), stopped.clone());
            async move {
                begun.send_modify(|begun| *begun += 1);
                let count = *begun.borrow();
                match count {
                    1 => panic!("leaf {count}"),
                    2 => {}
                    _ => {
                        pulse.well();
                        _ = stopped.wait_for(|stop| *stop).await;
                    }
                }
            }
        };
        let mut reports = tasks.reports();
        let states = async {
            let mut states = Vec::new();
            while states.len() < 3 {
                reports.changed().await.unwrap();
                let task = reports.borrow_and_update().iter().find(|task| task.name == "task").cloned().unwrap();
                states.push((task.state, task.failures, task.error.unwrap_or_default()));
            }
            stop.send_replace(true);
            states
        };
        let ((), states) =
            tokio::join!(watched_with(Duration::from_millis(1), pulse.clone(), stopped.clone(), begin), states);
        assert!(states[0].2.contains("panicked: leaf 1") && states[1].2.contains("ended by itself"), "{states:?}");
        let told: Vec<_> = states.iter().map(|(state, failures, _)| (*state, *failures)).collect();
        assert_eq!(told, [(TaskState::Down, 1), (TaskState::Down, 2), (TaskState::Well, 2)]);
        assert_eq!(*seen.borrow_and_update(), 3);
        let other = tasks.reports().borrow()[0].clone();
        assert_eq!((other.name, other.state, other.failures), ("other", TaskState::Failing, 1));
    }
}
