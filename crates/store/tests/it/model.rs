//! A model of append, fence, takeover and collection: every order in which two writers, the store and time can act, within bounds.
//!
//! A writer is an epoch of the head; so is what it writes, as an epoch writes at most one file under a name. Compaction is part
//! of raising the floor: what was under a name then is what the log has there from then on. The rule that a writer looks at the head
//! when it slept, and that it always looks after its fence, can be left out: then transactions that were acknowledged are lost.
//!
//! Time: files are removed when they are older than [`RETENTION`], and a look is good for [`LOOK`], the less. Their proportion does not
//! matter to what is shown, only which is more.

use stateright::{Checker, Model, Property};

const WRITERS: usize = 2;
/// Names of level 0.
const IDS: usize = 3;
const EPOCHS: u8 = 3;
const TICKS: u8 = 3;
const RETENTION: u8 = 2;
const LOOK: u8 = 1;

/// The rules that can be left out.
#[derive(Clone, Copy, Debug)]
struct Rules {
    look_after_sleep: bool,
    look_after_fence: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// It writes nothing.
    Idle,
    /// It looks for the end of the log.
    Probing,
    /// It commits nothing at the moment.
    Ready,
    /// The file is on its way.
    Putting { fence: bool },
    /// The file is there and its own.
    Created { fence: bool },
    /// Another's file is there.
    Taken { fence: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Writer {
    stage: Stage,
    epoch: u8,
    /// The name that it writes, or will write next.
    id: usize,
    looked: u8,
}

const IDLE: Writer = Writer {
    stage: Stage::Idle,
    epoch: 0,
    id: 0,
    looked: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct File {
    by: u8,
    at: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    epoch: u8,
    floor: usize,
    files: [Option<File>; IDS],
    /// Whose transactions the log has up to the floor.
    compacted: [u8; IDS],
    writers: [Writer; WRITERS],
    /// A request that was sent twice, and whose second copy has not arrived.
    late: Option<(usize, u8)>,
    was_late: bool,
    /// Whose transactions were acknowledged: a bit for each epoch.
    acknowledged: [u8; IDS],
}

impl State {
    /// Whose transaction the log has.
    fn log(&self, id: usize) -> Option<u8> {
        match id < self.floor {
            true => Some(self.compacted[id]),
            false => self.files[id].map(|file| file.by),
        }
    }

    fn create(&mut self, id: usize, by: u8) {
        let at = self.now;
        self.files[id].get_or_insert(File { by, at });
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Tick,
    Begin(usize),
    /// The store does what the request asks for, and the writer learns of it.
    Arrive(usize),
    /// The request is sent again, as after an answer that was lost, and the first copy arrives at any time later.
    Duplicate(usize),
    ArriveLate,
    /// What the writer makes of the answer.
    Conclude(usize),
    TakeOver(usize),
    Probe(usize),
    RaiseFloor(usize, usize),
    Delete(usize),
}

impl Rules {
    /// The head is still the writer's, and the name counts.
    fn looks(self, state: &State, writer: &mut Writer) -> bool {
        writer.looked = state.now;
        state.epoch == writer.epoch && writer.id >= state.floor
    }

    fn conclude(self, state: &mut State, n: usize) {
        let mut writer = state.writers[n];
        match writer.stage {
            Stage::Taken { fence: true } => {
                writer.id += 1;
                writer.stage = Stage::Putting { fence: true };
            }
            Stage::Created { fence } => {
                let slept = state.now - writer.looked > LOOK;
                let looks = match fence {
                    true => self.look_after_fence,
                    false => self.look_after_sleep && slept,
                };
                match !looks || self.looks(state, &mut writer) {
                    true => {
                        if !fence {
                            state.acknowledged[writer.id] |= 1 << writer.epoch;
                        }
                        writer.id += 1;
                        writer.stage = Stage::Ready;
                    }
                    false => writer = IDLE,
                }
            }
            _ => writer = IDLE,
        }
        state.writers[n] = writer;
    }
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = Writer {
            stage: Stage::Ready,
            epoch: 1,
            ..IDLE
        };
        vec![State {
            now: 0,
            epoch: 1,
            floor: 0,
            files: [None; IDS],
            compacted: [0; IDS],
            writers: [first, IDLE],
            late: None,
            was_late: false,
            acknowledged: [0; IDS],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < TICKS {
            actions.push(Action::Tick);
        }
        if state.late.is_some() {
            actions.push(Action::ArriveLate);
        }
        actions.extend(
            (0..state.floor)
                .filter(|id| state.files[*id].is_some())
                .map(Action::Delete),
        );
        for (n, writer) in state.writers.iter().enumerate() {
            if matches!(writer.stage, Stage::Idle | Stage::Ready) && state.epoch < EPOCHS {
                actions.push(Action::TakeOver(n));
            }
            match writer.stage {
                Stage::Probing => actions.push(Action::Probe(n)),
                Stage::Ready if writer.id < IDS => actions.push(Action::Begin(n)),
                Stage::Putting { .. } if writer.id < IDS => {
                    actions.push(Action::Arrive(n));
                    if !state.was_late && writer.epoch == 1 {
                        actions.push(Action::Duplicate(n));
                    }
                }
                Stage::Created { .. } | Stage::Taken { .. } => actions.push(Action::Conclude(n)),
                _ => {}
            }
            // What keeps the log works while a commit is on its way. The last transaction stays.
            if matches!(writer.stage, Stage::Ready | Stage::Putting { fence: false })
                && state.epoch == writer.epoch
            {
                let old = |id: usize| state.files[id].is_some_and(|file| state.now - file.at > RETENTION);
                let floors = (state.floor + 1..writer.id).take_while(|floor| old(floor - 1));
                actions.extend(floors.map(|floor| Action::RaiseFloor(n, floor)));
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = *before;
        match action {
            Action::Tick => state.now += 1,
            Action::Begin(n) => state.writers[n].stage = Stage::Putting { fence: false },
            Action::Arrive(n) => {
                let Writer { stage, epoch, id, .. } = state.writers[n];
                let Stage::Putting { fence } = stage else {
                    return None;
                };
                state.create(id, epoch);
                state.writers[n].stage = match state.files[id] {
                    Some(file) if file.by == epoch => Stage::Created { fence },
                    _ => Stage::Taken { fence },
                };
            }
            Action::Duplicate(n) => {
                state.late = Some((state.writers[n].id, state.writers[n].epoch));
                state.was_late = true;
            }
            Action::ArriveLate => {
                let (id, by) = state.late.take()?;
                state.create(id, by);
            }
            Action::Conclude(n) => self.conclude(&mut state, n),
            Action::TakeOver(n) => {
                state.epoch += 1;
                state.writers[n] = Writer {
                    stage: Stage::Probing,
                    epoch: state.epoch,
                    id: state.floor,
                    looked: state.now,
                };
            }
            Action::Probe(n) => {
                let free = |id: &usize| state.files.get(*id).is_none_or(Option::is_none);
                let writer = &mut state.writers[n];
                writer.id = (writer.id..).find(free)?;
                writer.stage = Stage::Putting { fence: true };
            }
            Action::RaiseFloor(_, floor) => {
                for id in state.floor..floor {
                    state.compacted[id] = state.files[id]?.by;
                }
                state.floor = floor;
            }
            Action::Delete(id) => state.files[id] = None,
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was acknowledged is in the log", |_, state: &State| {
                (0..IDS).all(|id| match state.acknowledged[id] {
                    0 => true,
                    by => state.log(id).is_some_and(|there| by == 1 << there),
                })
            }),
            Property::sometimes(
                "a sleeper writes under a name that is free again",
                |_, state: &State| {
                    state.writers.iter().any(|writer| {
                        writer.stage == Stage::Created { fence: false }
                            && writer.epoch < state.epoch
                            && writer.id < state.floor
                    })
                },
            ),
            Property::sometimes("one writer committed after the other", |_, state: &State| {
                state.acknowledged.contains(&0b10) && state.acknowledged.contains(&0b100)
            }),
        ]
    }
}

const ALL: Rules = Rules {
    look_after_sleep: true,
    look_after_fence: true,
};
const SAFE: &str = "what was acknowledged is in the log";

fn counterexample(rules: Rules) -> Option<String> {
    let checker = rules.checker().spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.discovery(SAFE).map(|path| format!("{path}"))
}

#[test]
fn no_order_of_events_loses_what_was_acknowledged() {
    let checker = ALL.checker().spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn without_the_look_after_a_sleep_the_model_finds_the_update_that_is_lost() {
    let rules = Rules {
        look_after_sleep: false,
        ..ALL
    };
    let found = counterexample(rules).expect("a sleeping writer loses an update");
    println!("{found}");
    assert!(found.contains("Delete") && found.contains("Tick"), "{found}");
}

#[test]
fn without_the_look_after_the_fence_the_model_finds_the_update_that_is_lost() {
    let rules = Rules {
        look_after_fence: false,
        ..ALL
    };
    let found = counterexample(rules).expect("a sleeping takeover loses an update");
    println!("{found}");
    assert!(found.contains("Probe"), "{found}");
}
