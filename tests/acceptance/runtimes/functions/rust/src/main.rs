//! The behaviours of the matrix for lambda_runtime.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lambda_runtime::streaming::{channel, Body, Response};
use lambda_runtime::{run, service_fn, Context, Diagnostic, Error, LambdaEvent};
use serde_json::{json, Value};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Does what `do` asks for; any other event is answered with itself.
async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let (event, context) = event.into_parts();
    let count = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    match event["do"].as_str() {
        Some("fail") => Err(Diagnostic {
            error_type: "OnPurpose".into(),
            error_message: "on purpose".into(),
        }),
        Some("context") => Ok(describe(&context)),
        Some("count") => Ok(json!({"n": event["n"], "count": count})),
        Some("sleep") => {
            let seconds = event["seconds"].as_u64().unwrap_or(0);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(event)
        }
        Some("size") => Ok(json!({"bytes": event["data"].as_str().map_or(0, str::len)})),
        Some("big") => {
            let bytes = event["bytes"].as_u64().unwrap_or(0) as usize;
            Ok(Value::String("x".repeat(bytes - r#""""#.len())))
        }
        _ => Ok(event),
    }
}

fn describe(context: &Context) -> Value {
    let remaining = context.deadline().duration_since(SystemTime::now());
    json!({
        "request_id": context.request_id,
        "arn": context.invoked_function_arn,
        "name": context.env_config.function_name,
        "version": context.env_config.version,
        "memory_mb": context.env_config.memory,
        "remaining_ms": remaining.map_or(0, |left| left.as_millis() as u64),
        "trace_id": context.xray_trace_id,
        "client_context": context.client_context.as_ref().map(|client| &client.custom),
    })
}

/// Writes the parts, the second when there is the file `until`.
async fn stream(event: LambdaEvent<Value>) -> Result<Response<Body>, Error> {
    let (mut sender, body) = channel();
    let event = event.payload;
    tokio::spawn(async move {
        let parts = event["parts"].as_array().cloned().unwrap_or_default();
        for (number, part) in parts.iter().enumerate() {
            while number == 1 && !Path::new(event["until"].as_str().unwrap_or("/")).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let part = part.as_str().unwrap_or_default().to_owned();
            if sender.send_data(part.into()).await.is_err() {
                return;
            }
        }
    });
    Ok(Response::from(body))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if std::env::var_os("FAIL_INIT").is_some() {
        return Err("init on purpose".into());
    }
    if std::env::var("_HANDLER").as_deref() == Ok("stream") {
        return run(service_fn(stream)).await;
    }
    run(service_fn(handle)).await
}
