//! `/handover`: how this process came to its sockets, and to whom it gives them.

use std::sync::Arc;

use mesh_api_rt::admin::{Response, Router};

use super::Admin;

/// Adds the page.
pub(super) fn page(router: Router, admin: &Arc<Admin>) -> Router {
    let admin = Arc::clone(admin);
    router.get("/handover", "Generation of this process, who came before it and who takes over, as JSON", move |_| {
        Response::json(&admin.context.handover.dump())
    })
}
