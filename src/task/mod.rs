//! The vocabulary: pure words about tasks, with no async, no I/O and no serialization.
//!
//! Everything that comes from outside is parsed into these types at the door ([`crate::api`], [`crate::config`]);
//! inside, nothing is in doubt.

pub mod fault;
pub mod glob;
pub mod header;
pub mod id;
pub mod limits;
pub mod name;
pub mod outcome;
pub mod priority;
pub mod reserved;
pub mod retry;
pub mod scope;
pub mod spec;
pub mod status;
pub mod time;

pub use fault::Fault;
pub use glob::Glob;
pub use header::{Attempt, Body, Header, LeaseKind, NoCredential};
pub use id::{IdTail, KeyCounter, TaskId, TaskKey, TaskRef};
pub use name::{CallerName, CredentialName, LaneName, NameError, QueueName, TaskName, TaskType};
pub use outcome::{Outcome, OutcomeClass, Verdict};
pub use priority::{Priority, PriorityOrder};
pub use retry::{RetryOverrides, RetryPolicy, StopWhen};
pub use spec::{TaskSpec, When};
pub use status::Status;
pub use time::{Span, WallMs};
