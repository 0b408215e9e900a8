//! AWS's Lambda Web Adapter: an extension that calls a web application in the runtime's place.

use lambda_web_adapter::{Adapter, AdapterOptions, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut adapter = Adapter::new(&AdapterOptions::default())?;
    adapter.register_default_extension();
    adapter.check_init_health().await;
    adapter.run().await
}
