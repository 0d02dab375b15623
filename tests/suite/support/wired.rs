//! Two clusters, each behind a proxy that tandem goes through and the applications do not.

use super::env::{LinkConfig, TestEnv};
use super::mongod::{Mongod, MongodOptions};
use super::oracle::Side;
use super::proxy::{Network, Proxy};

pub struct Wired {
    pub env: TestEnv,
    pub a: Proxy,
    pub b: Proxy,
}

impl Wired {
    pub async fn start() -> Self {
        let (a, b) = (Proxy::start().await, Proxy::start().await);
        let (eu, us) = tokio::join!(
            Mongod::start_behind(MongodOptions::named("eu-set"), &a),
            Mongod::start_behind(MongodOptions::named("us-set"), &b),
        );
        let env = TestEnv::of(eu, us);
        Self { env, a, b }
    }

    pub fn link(&self) -> LinkConfig {
        let link = self.env.link();
        link.extra("[timeouts]\nconnect = \"2s\"\noperation = \"1s\"")
    }

    pub fn both(&self, network: Network) {
        self.a.set(network);
        self.b.set(network);
    }

    pub fn proxy(&self, side: Side) -> &Proxy {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    pub fn server(&self, side: Side) -> &Mongod {
        match side {
            Side::A => &self.env.a,
            Side::B => &self.env.b,
        }
    }

    pub fn server_mut(&mut self, side: Side) -> &mut Mongod {
        match side {
            Side::A => &mut self.env.a,
            Side::B => &mut self.env.b,
        }
    }
}
