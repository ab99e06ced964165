//! `POST /v1/auth/register`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use crate::infra::http::{ApiError, JsonFields, RequestContext, read_json};
use crate::users::application::ports::Origin;
use crate::users::application::register_user::{NewUser, RegisterError, RegisterUser};
use crate::users::domain::{EmailAddress, Password, PersonName};
use crate::users::http::wire::{TokenBody, UserBody};

#[derive(Serialize)]
struct Body {
    user: UserBody,
    #[serde(flatten)]
    token: TokenBody,
}

/// 201 with the person and a token.
///
/// # Errors
/// 400, 409 `EMAIL_EXISTS`, 503; 429 stands before it.
pub(super) async fn handle(
    request: HttpRequest,
    payload: web::Payload,
    context: web::ReqData<RequestContext>,
    register_user: web::Data<RegisterUser>,
) -> Result<HttpResponse, ApiError> {
    let new = parse(read_json(&request, payload).await?)?;
    let RequestContext { request_id, traceparent } = context.into_inner();
    let registered = register_user.execute(new, Origin { request_id, traceparent }).await.map_err(refusal)?;
    Ok(HttpResponse::Created().json(Body { user: (&registered.user).into(), token: (&registered.access_token).into() }))
}

fn parse(mut fields: JsonFields) -> Result<NewUser, ApiError> {
    let first_name = fields.text("firstName", PersonName::parse);
    let last_name = fields.text("lastName", PersonName::parse);
    let email = fields.text("email", EmailAddress::parse);
    let password = fields.text("password", Password::parse);
    let new = || Some(NewUser { first_name: first_name?, last_name: last_name?, email: email?, password: password? });
    fields.finish(new())
}

fn refusal(error: RegisterError) -> ApiError {
    match error {
        RegisterError::EmailExists => {
            let message = "This email address is already registered. Log in instead.";
            ApiError::new(StatusCode::CONFLICT, "EMAIL_EXISTS", message)
        }
        RegisterError::Overloaded => ApiError::overloaded(),
        other @ (RegisterError::Store(_) | RegisterError::Hash(_) | RegisterError::Token(_)) => {
            ApiError::from_failure(&other)
        }
    }
}
