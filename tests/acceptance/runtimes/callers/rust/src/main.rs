//! Calls functions with AWS's SDK for Rust; see caller_rows.py for its lines.

use aws_sdk_lambda::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, InvokeWithResponseStreamResponseEvent};
use aws_sdk_lambda::Client;
use std::io::BufRead;

/// Makes the file FIRST_PART when the first part has come.
async fn stream(client: &Client, function: &str, payload: &str) -> String {
    let sent = client
        .invoke_with_response_stream()
        .function_name(function)
        .payload(Blob::new(payload))
        .send()
        .await;
    let mut answer = match sent {
        Ok(answer) => answer,
        Err(error) => return format!("exception\t{error}\t0\t{error:?}"),
    };
    let mut parts = Vec::new();
    let mut code = "no end".to_owned();
    loop {
        match answer.event_stream.recv().await {
            Ok(None) => break,
            Ok(Some(InvokeWithResponseStreamResponseEvent::PayloadChunk(part))) => {
                parts.extend_from_slice(part.payload().map(|blob| blob.as_ref()).unwrap_or_default());
                std::fs::write(std::env::var("FIRST_PART").expect("a file"), "").expect("a file");
            }
            Ok(Some(InvokeWithResponseStreamResponseEvent::InvokeComplete(end))) => {
                code = end.error_code().unwrap_or_default().to_owned();
            }
            Ok(Some(_)) => {}
            Err(error) => return format!("exception\t{error}\t0\t{error:?}"),
        }
    }
    format!("ok\t{}\t{code}\t{}", answer.status_code(), String::from_utf8_lossy(&parts))
}

async fn call(client: &Client, kind: &str, function: &str, payload: &str) -> String {
    if kind == "Stream" {
        return stream(client, function, payload).await;
    }
    let sent = client
        .invoke()
        .function_name(function)
        .invocation_type(InvocationType::from(kind))
        .payload(Blob::new(payload))
        .send()
        .await;
    match sent {
        Ok(answer) => {
            let payload = answer.payload().map(|blob| blob.as_ref()).unwrap_or_default();
            format!(
                "ok\t{}\t{}\t{}",
                answer.status_code(),
                answer.function_error().unwrap_or_default(),
                String::from_utf8_lossy(payload)
            )
        }
        Err(SdkError::ServiceError(error)) => {
            let fault = error.err();
            let name = if fault.is_resource_not_found_exception() {
                "ResourceNotFoundException"
            } else {
                fault.code().unwrap_or_default()
            };
            let status = error.raw().status().as_u16();
            format!("exception\t{name}\t{status}\t{}", fault.message().unwrap_or_default())
        }
        Err(error) => format!("exception\t{error}\t0\t{error:?}"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let endpoint = std::env::args().nth(1).expect("an endpoint");
    let config = aws_sdk_lambda::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("dummy", "dummy", None, None, "test"))
        .retry_config(aws_sdk_lambda::config::retry::RetryConfig::disabled())
        .build();
    let client = Client::from_conf(config);
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let mut parts = line.splitn(3, '\t');
        let mut part = || parts.next().expect("three parts");
        println!("{}", call(&client, part(), part(), part()).await);
    }
}
