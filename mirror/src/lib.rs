//! The third copy, and the road when the link is down.
//!
//! A mirror holds the tree as ordinary files and folders, in Google Drive or on any disk, so that a person can open it there and a burnt
//! machine loses nothing. It is no side of the pair: the pair agrees, and the mirror follows; what a person changes in it
//! comes back as an edit of this machine's tree. When the link between the two is down, both look at it, and it is their road.
//!
//! Read from top to bottom; each module uses only those above it.

pub mod target;

pub mod patient;

pub mod sum;

pub mod folder;

pub mod drive;

pub mod any;

pub mod store;

pub mod tree;

pub mod round;

mod verify;

pub mod restore;

pub mod duty;
