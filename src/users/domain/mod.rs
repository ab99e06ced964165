//! Users and the rules of a registration. Pure values, parsed once at the edge.

mod email_address;
mod password;
mod person_name;
mod user;

pub use email_address::{EmailAddress, EmailRefused};
pub use password::{Password, PasswordRefused};
pub use person_name::{NameRefused, PersonName};
pub use user::User;
