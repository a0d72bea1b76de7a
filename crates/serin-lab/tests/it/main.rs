//! The lab's parts over their own doors: requests in, answers out.

mod apply;
mod custom;
mod discovery;
mod kubectl;
mod lab;
mod mesh;
mod odd;
mod rest;
mod routes;
mod workloads;
mod world;
