//! Variables of Istio's agent that ask for something this proxy does not do: it does not start, and says which.

use mesh_api::inject::variables::{REFUSED, Refused};

use super::BootstrapError;
use super::env::{Env, Layered};

/// Finds the first that asks for something.
pub(super) fn check<E: Env>(env: &Layered<'_, E>) -> Result<(), BootstrapError> {
    for Refused { name, instead, .. } in REFUSED {
        if let Some(value) = env.get(name)
            && Refused::find(name, &value).is_some()
        {
            return Err(BootstrapError::Refused { name, value, instead });
        }
    }
    Ok(())
}
