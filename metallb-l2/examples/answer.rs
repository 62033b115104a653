//! Answers ARP and NDP requests for one address on one interface until Enter is pressed.
//!
//! ```console
//! $ cargo build -p metallb-l2 --example answer
//! $ sudo target/debug/examples/answer eth0 192.0.2.10
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use metallb_l2::interface::Scope;
use metallb_l2::io::{Driver, InterfaceFilter, Notification};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: answer INTERFACE ADDRESS".into());
    };
    let address: IpAddr = address.parse()?;
    let only: InterfaceFilter = Arc::new(move |name| name == interface);
    let driver = Driver::start(only, RandomState::new().hash_one(0))?;
    let handle = driver.handle();
    handle.listen(|notification| match notification {
        Notification::Interfaces(interfaces) => println!("{} interface(s) in use", interfaces.len()),
        Notification::Announced(addresses) => println!("announced {addresses:?}"),
        _ => {}
    });
    handle.announce(vec![(address, Scope::All)]);
    std::io::stdin().read_line(&mut String::new())?;

    let counters = handle.counters();
    println!("{} requests, {} replies", total(&counters.requests), total(&counters.responses));
    for (ip, reason) in handle.refused() {
        println!("{ip} was not announced: {reason}");
    }
    // Dropping the driver stops its thread and ends the replies.
    drop(driver);
    Ok(())
}

fn total(counts: &std::collections::BTreeMap<IpAddr, u64>) -> u64 {
    counts.values().sum()
}
