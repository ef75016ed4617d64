//! The rules of the house, as tests. Each message says what to do.

mod house;
mod lock;
mod manual;
mod repository;
mod shipped;
mod sources;
