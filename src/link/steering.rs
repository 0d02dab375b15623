//! What an operator does to a running link: pausing it, and giving it another configuration.

use std::sync::Arc;

use super::pausing::Pausing;
use super::reloading::Reloading;

/// Cheap to clone.
#[derive(Clone)]
pub struct Steering {
    pub pausing: Arc<Pausing>,
    pub reloading: Arc<Reloading>,
}
