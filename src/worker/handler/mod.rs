//! What runs a task type: the trait that every kind of handler implements, and the registry that finds it.

pub mod http;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use super::attempt::AttemptContext;
use crate::security::credential::Refused;
use crate::security::egress::Refusal;
use crate::task::{Fault, LaneName, Outcome, QueueName, TaskType};

/// Runs the tasks of one type.
pub trait Handler: Send + Sync + 'static {
    /// Checks a payload when it is posted (all faults at once, pointers relative to the payload), and names the lane:
    /// what its tasks share that can block them together. The queue is the one it is to go to.
    fn check(&self, payload: &[u8], queue: &QueueName) -> Result<LaneName, CheckError>;

    /// Makes one attempt. Calls [`AttemptContext::hand_over`] before anything can be seen outside, and keeps the
    /// deadline that it returns. Dropping the future must end the attempt, sockets and all.
    fn run<'a>(&'a self, attempt: &'a AttemptContext) -> BoxFuture<'a, Outcome>;
}

/// Why a task is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Nothing runs this type.
    #[error("unknown task type{}", did_you_mean(nearest.as_ref()))]
    UnknownType {
        /// The known name most like it, if one is like it.
        nearest: Option<TaskType>,
    },
    /// The payload is faulty.
    #[error("the payload has {} faults", .0.len())]
    Faults(Vec<Fault>),
    /// The egress policy refuses its target.
    #[error(transparent)]
    Egress(#[from] Refusal),
    /// Its credential may not go to its target.
    #[error(transparent)]
    Credential(#[from] Refused),
}

fn did_you_mean(nearest: Option<&TaskType>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

/// Every task type and what runs it.
#[derive(Clone, Default)]
pub struct Handlers(BTreeMap<TaskType, Arc<dyn Handler>>);

impl Handlers {
    /// Adds the handler of a task type, in place of one that was there.
    #[must_use]
    pub fn with(mut self, task_type: TaskType, handler: Arc<dyn Handler>) -> Self {
        self.0.insert(task_type, handler);
        self
    }

    /// What runs `task_type`.
    pub fn get(&self, task_type: &TaskType) -> Option<&Arc<dyn Handler>> {
        self.0.get(task_type)
    }

    /// Checks a payload by its type's handler.
    pub fn check(&self, task_type: &TaskType, payload: &[u8], queue: &QueueName) -> Result<LaneName, CheckError> {
        match self.get(task_type) {
            Some(handler) => handler.check(payload, queue),
            None => Err(CheckError::UnknownType { nearest: self.nearest(task_type) }),
        }
    }

    /// The known type most like `given`: at most a third of it misspelt.
    fn nearest(&self, given: &TaskType) -> Option<TaskType> {
        let distance = |known: &&TaskType| strsim::damerau_levenshtein(known.as_str(), given.as_str());
        let near_enough = |known: &&TaskType| distance(known) <= (given.as_str().len() / 3).max(1);
        self.0.keys().filter(near_enough).min_by_key(distance).cloned()
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Handler for Nothing {
        fn check(&self, _payload: &[u8], _queue: &QueueName) -> Result<LaneName, CheckError> {
            Ok(LaneName::new("nothing"))
        }

        fn run<'a>(&'a self, attempt: &'a AttemptContext) -> BoxFuture<'a, Outcome> {
            Box::pin(async { Outcome::answered(200, bytes::Bytes::new(), attempt.took()) })
        }
    }

    #[test]
    fn an_unknown_type_is_refused_with_the_nearest_name() {
        let name = |text| TaskType::parse(text).unwrap();
        let handlers = Handlers::default()
            .with(name("http_request"), Arc::new(Nothing))
            .with(name("send_mail"), Arc::new(Nothing));
        let queue = QueueName::parse("default").unwrap();
        let error = |text| handlers.check(&name(text), b"{}", &queue).unwrap_err().to_string();
        assert_eq!(error("htp_request"), "unknown task type; did you mean `http_request`?");
        assert_eq!(error("sendmail"), "unknown task type; did you mean `send_mail`?");
        assert_eq!(error("resize"), "unknown task type");
        assert_eq!(handlers.check(&name("send_mail"), b"{}", &queue), Ok(LaneName::new("nothing")));
        assert_eq!(format!("{handlers:?}"), r#"{TaskType("http_request"), TaskType("send_mail")}"#);
    }
}
