//! Hooks that convert objects whose type has changed.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, RwLock};

/// Fills a new object from an old one.
pub type Hook = Arc<dyn Fn(&[u8], &mut [u8]) + Send + Sync>;

static HOOKS: LazyLock<RwLock<HashMap<String, Hook>>> = LazyLock::new(RwLock::default);

/// Registers the hook for a type; before the pool is opened.
pub fn register(type_name: &str, hook: Hook) {
    let mut hooks = HOOKS.write().unwrap_or_else(|e| e.into_inner());
    hooks.insert(type_name.to_owned(), hook);
}

pub(crate) fn has_hook(type_name: &str) -> bool {
    hook(type_name).is_some()
}

pub(crate) fn hook(type_name: &str) -> Option<Hook> {
    let hooks = HOOKS.read().unwrap_or_else(|e| e.into_inner());
    hooks.get(type_name).cloned()
}
