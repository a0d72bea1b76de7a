//! stub
#![allow(missing_docs, unused_variables)]
use serde::{Serialize,Deserialize};
#[derive(Clone,Copy,Debug,Default,PartialEq,Serialize,Deserialize)] pub struct Counts{pub n:f64,pub x:f64}
#[derive(Clone,Copy,Debug,Default,PartialEq)] pub struct Batch{pub canary:Counts,pub stable:Counts}
#[derive(Clone,Debug,PartialEq)] pub enum Test{Compare{margin:f64,ratio:f64},Limit{max:f64}}
impl Test{pub fn can_pass(&self)->bool{true}}
#[derive(Clone,Debug,PartialEq)] pub struct MetricTest{pub test:Test,pub weight:f64}
#[derive(Clone,Copy,Debug,PartialEq)] pub enum Bursts{Auto,Off}
pub struct Settings{pub alpha:f64,pub beta:f64,pub bursts:Bursts,pub interval_s:f64}
#[derive(Clone,Copy,Debug,PartialEq)] pub enum Counting{HarmOnly,Full}
pub struct History{pub n:f64,pub x:f64,pub polls:alloc::vec::Vec<Counts>}
#[derive(Clone,Debug,PartialEq,Serialize,Deserialize)] pub struct Analysis{}
pub struct Harm{pub failed:bool,pub suspected:bool,pub ln_e:f64,pub p:f64,pub cause:Option<usize>}
pub struct Fitness{pub fit:bool,pub gross_excluded:bool}
impl Analysis{
pub fn new(t:&[MetricTest],h:&[Option<History>])->Self{Self{}}
pub fn start_step(&mut self){}
pub fn judge(&mut self,t:&[MetricTest],s:&Settings,b:&[Option<Batch>],dt:f64,c:Counting){}
pub fn harm(&self,t:&[MetricTest],s:&Settings)->Harm{Harm{failed:false,suspected:false,ln_e:0.,p:1.,cause:None}}
pub fn fitness(&self,m:usize,s:&Settings)->Fitness{Fitness{fit:true,gross_excluded:true}}
pub fn totals(&self,m:usize)->Batch{Batch::default()}
pub fn step_totals(&self,m:usize)->Batch{Batch::default()}
pub fn gross_requests_needed(&self,m:usize,s:&Settings)->Option<f64>{None}
pub fn requests_needed(&self,m:usize,t:&[MetricTest],s:&Settings,w:f64)->Option<f64>{None}
}
#[derive(Clone,Debug,Default,PartialEq,Serialize,Deserialize)] pub struct Split{}
impl Split{pub fn update(&mut self,w:f64,n:f64,c:f64){} pub fn alarm(&self)->bool{false} pub fn canary(&self)->f64{0.} pub fn total(&self)->f64{0.}}
pub mod interval{pub fn rate(c:super::Counts,a:f64)->(f64,f64){(0.,1.)}}
