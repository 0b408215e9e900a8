//! An extension on AWS's crate: it appends what it hears to the file RECORDER_FILE, a line each.
//!
//! It subscribes to telemetry, or with RECORDER_API=logs to logs, on port RECORDER_PORT.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use lambda_extension::{
    service_fn, Error, Extension, LambdaEvent, LambdaLog, LambdaTelemetry, LogBuffering, NextEvent,
    SharedService,
};

fn append(line: &str) -> Result<(), Error> {
    let path = env::var("RECORDER_FILE")?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{line}")?;
    Ok(())
}

async fn on_event(event: LambdaEvent) -> Result<(), Error> {
    match event.next {
        NextEvent::Invoke(invoke) => append(&format!("INVOKE {}", invoke.request_id)),
        NextEvent::Shutdown(shutdown) => append(&format!("SHUTDOWN {}", shutdown.shutdown_reason)),
    }
}

async fn on_telemetry(batch: Vec<LambdaTelemetry>) -> Result<(), Error> {
    for record in batch {
        append(&serde_json::to_string(&record)?)?;
    }
    Ok(())
}

async fn on_logs(batch: Vec<LambdaLog>) -> Result<(), Error> {
    for record in batch {
        append(&format!("{:?}", record.record))?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let port: u16 = env::var("RECORDER_PORT")?.parse()?;
    let buffering = LogBuffering { timeout_ms: 25, max_bytes: 262_144, max_items: 1_000 };
    let extension = Extension::new().with_events_processor(service_fn(on_event));
    if env::var("RECORDER_API").as_deref() == Ok("logs") {
        extension
            .with_logs_processor(SharedService::new(service_fn(on_logs)))
            .with_log_buffering(buffering)
            .with_log_port_number(port)
            .run()
            .await
    } else {
        extension
            .with_telemetry_processor(SharedService::new(service_fn(on_telemetry)))
            .with_telemetry_buffering(buffering)
            .with_telemetry_port_number(port)
            .run()
            .await
    }
}
