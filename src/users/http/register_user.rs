//! `POST /v1/auth/register`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;

use crate::infra::http::openapi::{Endpoint, format};
use crate::infra::http::{
    ApiError, Fields, PublicUrl, REPLAYED, RequestContext, TextLimiter, idempotency_key, key_reused, read_json,
    with_key,
};
use crate::users::application::ports::Origin;
use crate::users::application::register_user::{NewUser, RegisterError, RegisterUser};
use crate::users::domain::{EmailAddress, Password, PersonName};
use crate::users::http::api::UsersApi;
use crate::users::http::wire::{TokenBody, UserBody};

#[derive(Serialize, ToSchema)]
#[schema(as = RegistrationResult)]
struct Body {
    user: UserBody,
    #[serde(flatten)]
    token: TokenBody,
}

/// 201 with the user and a token; 200 if an earlier request with the same key has registered the user.
///
/// # Errors
/// 400, 409, 422, 429 by account, 503; after 429 by address.
async fn handle(
    request: HttpRequest,
    payload: web::Payload,
    context: web::ReqData<RequestContext>,
    register_user: web::Data<RegisterUser>,
    account_limit: web::Data<TextLimiter>,
) -> Result<HttpResponse, ApiError> {
    let fields = read_json(&request, payload).await?;
    let key = idempotency_key(&request)?;
    let new = fields.read(registration)?;
    if key.is_some() {
        // A replay compares the password, so it counts like a login.
        account_limit.count(new.email.as_str()).await?;
    }
    let RequestContext { request_id, traceparent } = context.into_inner();
    let registered = register_user.execute(new, key, Origin { request_id, traceparent }).await.map_err(api_error)?;
    let body = Body { user: (&registered.user).into(), token: (&registered.access_token).into() };
    if registered.is_replay {
        return Ok(HttpResponse::Ok().insert_header(REPLAYED).json(body));
    }
    let location = PublicUrl::of(&request).to("/v1/users/me");
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).json(body))
}

fn registration(body: &mut Fields) -> Option<NewUser> {
    let name = |name: ObjectBuilder| {
        name.description(Some(
            "At least one visible character, no control characters; leading and trailing whitespace is removed.",
        ))
        .min_length(Some(1))
        .max_length(Some(100))
        .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"))
    };
    let first_name = body.text("firstName", PersonName::parse, name);
    let last_name = body.text("lastName", PersonName::parse, name);
    let email = body.text("email", EmailAddress::parse, |email| {
        email
            .description(Some("At most 254 bytes; case-insensitive. Unicode is normalized to NFC."))
            .format(Some(format("email")))
            .max_length(Some(254))
    });
    let password = body.text("password", Password::parse, |password| {
        password
            .description(Some("At least 8 characters, at most 1024 bytes; used exactly as sent."))
            .format(Some(format("password")))
            .min_length(Some(8))
            .max_length(Some(1024))
            .pattern(Some(r"^[^\x00]*$"))
    });
    Some(NewUser { first_name: first_name?, last_name: last_name?, email: email?, password: password? })
}

fn email_exists() -> ApiError {
    let message = "This email address is already registered. Log in instead.";
    ApiError::new(StatusCode::CONFLICT, "EMAIL_EXISTS", message)
}

fn outcome_unknown() -> ApiError {
    ApiError::outcome_unknown(
        "The user may or may not have been registered. Retry with the same Idempotency-Key to find out. Without one, log in; if \
         that fails with 401, register again.",
    )
}

fn api_error(error: RegisterError) -> ApiError {
    match error {
        RegisterError::EmailExists => email_exists(),
        RegisterError::KeyReused => key_reused(),
        RegisterError::Overloaded => ApiError::overloaded(),
        unknown @ RegisterError::OutcomeUnknown(_) => outcome_unknown().caused_by(&unknown),
        other @ (RegisterError::Store(_) | RegisterError::Hash(_) | RegisterError::Token(_)) => {
            ApiError::from_failure(&other)
        }
    }
}

pub(super) fn endpoint() -> Endpoint<UsersApi> {
    let example = json!({"firstName": "Ada", "lastName": "Lovelace", "email": "ada@example.com", "password": "correct horse battery"});
    let bad = json!({"firstName": "Ada", "lastName": " ", "email": "ada", "colour": "red"});
    let registered = Body { user: UserBody::example(), token: TokenBody::example() };
    let endpoint = Endpoint::post("/v1/auth/register", handle, "registerUser", "Register a user")
        .tag("users")
        .about(
            "The response includes an access token. The wallet role creates the wallet a few milliseconds later.\n\n\
             With an `Idempotency-Key`, a registration whose response was lost can be retried safely. Keys of registrations are \
             shared by all clients: use a random one, such as a UUID.",
        )
        .limited(|api: &UsersApi| &api.register_limit)
        .body("Registration", registration, example, &bad)
        .returns(StatusCode::CREATED, "Registered.", &registered)
        .with_header(StatusCode::CREATED, &header::LOCATION)
        .returns(
            StatusCode::OK,
            "Already registered by an earlier request with the same key. The access token is a new one.",
            &registered,
        )
        .errors([email_exists(), ApiError::dependency_unavailable(), outcome_unknown()]);
    with_key(endpoint, "registers no other user; its access token is a new one")
}
