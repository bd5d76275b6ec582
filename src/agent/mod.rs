//! The only loop that decides.
//!
//! It is level-triggered: it takes a snapshot of everything that is known ([`World`]), plans ([`plan()`], pure), acts,
//! publishes a report, and waits for any change or the next moment at which time alone changes the plan. It never
//! moves a byte itself and never talks to an outside system: its steps are carried out by `image/` and `weights/`.

mod boot;
mod choice;
mod jobs;
mod learn;
mod learn_room;
mod left_alone;
mod memory;
mod plan;
mod pressure;
mod ready;
mod removals;
mod shrink;
mod slots;
mod standing;
mod step;
mod superseded;
mod task;
#[cfg(test)]
mod tests;
mod vanishing;
mod wake;
mod world;
mod yielding;

pub use boot::{BootState, BootStateError};
pub use jobs::Rooms;
pub use plan::{MAX_ENTRIES, Plan, plan};
pub use step::{Outcome, Step, Warmed};
pub use task::{Agent, Inputs};
pub use world::{GateMode, NoGpu, Now, Settings, World};
