//! Connections that cost no thread: one poller watches them all.
//!
//! Two kinds of guests. A *parked* connection waits for its next request and goes back to the crew with its
//! first byte; it is closed after `idle_timeout`, and at once when the door is quiet (before its first request only when
//! the door has done with waiting for those). A *lingering* one was
//! sent its last answer while its client may still be sending: what comes is thrown away until the client has
//! seen the answer and closes, for at most [`LINGER`]. (Closing with unread bytes makes the kernel send a
//! reset, which takes the answer away from the client.)
//!
//! *Who changes what.* Anybody may add a guest, and the acceptor may evict one, under the lock; else only the poller
//! removes one, so an event and a deadline can't both take it. A guest is taken out of epoll before its key is free, so
//! an event fetched later can't name another guest. One that the poller had fetched before an eviction can, and does
//! no harm: who lingers has nothing to be read, who is parked gets a thread, says nothing, and is parked again.
//! A guest whose deadline comes before the poller means to wake rings the bell.
//! Nothing is called under the lock but `epoll_ctl`, and a `recv` or `poll` that doesn't wait.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, epoll};
use rustix::io::Errno;
use slab::Slab;

use super::bell::Bell;
use super::connection::Connection;
use super::shared::{Place, Shared};
use super::socket::{Received, Socket, poll_for, timespec};
use crate::clock::Time;

/// How long a client may take to read its last answer.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Lingering connections that were turned away and so have no place that would bound them.
pub(super) const HOMELESS: usize = 64;

/// Events taken from the kernel at once.
const EVENTS: usize = 128;

/// The bell's name among the events; a slab never has so many guests.
const BELL: u64 = u64::MAX;

/// See the module's story.
#[derive(Debug)]
pub(super) struct Parking {
    epoll: OwnedFd,
    bell: Bell,
    lot: Mutex<Lot>,
}

#[derive(Debug)]
struct Lot {
    guests: Slab<Guest>,
    /// When each guest is sent off.
    deadlines: BTreeSet<(Time, usize)>,
    parked: usize,
    homeless: usize,
    /// When the poller means to look at the deadlines again.
    wakes_at: Time,
    closed: bool,
}

#[derive(Debug)]
struct Guest {
    kind: GuestKind,
    deadline: Time,
}

#[derive(Debug)]
enum GuestKind {
    Parked(Connection),
    Lingering(Arc<Socket>, Option<Place>),
}

impl Parking {
    /// # Errors
    /// When the process has no file handle left.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        let name = epoll::EventData::new_u64(BELL);
        epoll::add(&epoll, &bell, name, epoll::EventFlags::IN)?;
        let lot = Lot {
            guests: Slab::new(),
            deadlines: BTreeSet::new(),
            parked: 0,
            homeless: 0,
            wakes_at: Time::NEVER,
            closed: false,
        };
        Ok(Parking {
            epoll,
            bell,
            lot: Mutex::new(lot),
        })
    }

    /// Watches a connection until its next byte. A broken one is dropped.
    pub(super) fn park(&self, door: &Shared, connection: Connection) {
        let deadline = door.clock.now() + door.config.idle_timeout;
        self.add(GuestKind::Parked(connection), deadline);
        if door.is_quiet() {
            // Either this look sees that the door became quiet, or the poller, woken after, sees the guest.
            self.bell.ring();
        }
    }

    /// Lets a client read its last answer, then closes. Without a place only a few may linger.
    pub(super) fn linger(&self, door: &Shared, socket: Arc<Socket>, place: Option<Place>) {
        socket.shut_write();
        let deadline = door.clock.now() + LINGER;
        self.add(GuestKind::Lingering(socket, place), deadline);
    }

    fn add(&self, kind: GuestKind, deadline: Time) {
        let mut lot = self.lot.lock();
        match lot.enter(&self.epoll, kind, deadline) {
            Ok(wakes_too_late) => {
                drop(lot);
                if wakes_too_late {
                    self.bell.ring();
                }
            }
            Err(turned_away) => {
                // Dropping it gives its place back, which takes another lock.
                drop(lot);
                drop(turned_away);
            }
        }
    }

    /// Closes the connection that has been parked for the longest, to make room for one that may have something to say;
    /// but none whose next request is here, and not yet seen by the poller.
    pub(super) fn evict(&self) {
        let mut lot = self.lot.lock();
        let mut keys = lot.deadlines.iter().map(|&(_, key)| key);
        let oldest = keys.find(|&key| lot.is_parked(key) && lot.is_silent(key));
        let guest = oldest.map(|key| lot.leave(&self.epoll, key));
        // Dropping it gives its place back, which takes another lock.
        drop(lot);
        drop(guest);
    }

    /// Parked connections.
    pub(super) fn parked(&self) -> usize {
        self.lot.lock().parked
    }

    /// Lingering connections.
    pub(super) fn lingering(&self) -> usize {
        let lot = self.lot.lock();
        lot.guests.len() - lot.parked
    }

    /// Makes the poller look at what changed: the door became quiet.
    pub(super) fn look(&self) {
        self.bell.ring();
    }

    /// Ends the poller; its guests are dropped.
    pub(super) fn close(&self) {
        self.lot.lock().closed = true;
        self.bell.ring();
    }

    /// The poller's life.
    pub(super) fn poll(&self, door: &Arc<Shared>) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut rubbish = Vec::with_capacity(16 * 1024);
        loop {
            events.clear();
            let timeout = self.next_look().until(door.clock.now());
            match epoll::wait(
                &self.epoll,
                spare_capacity(&mut events),
                Some(&timespec(timeout)),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => log::error!("the poller of parked connections: {error}"),
            }
            for event in &events {
                match event.data.u64() {
                    BELL => self.bell.clear(),
                    key => self.answer(door, key as usize, &mut rubbish),
                }
            }
            if self.send_off(door) {
                return;
            }
        }
    }

    fn next_look(&self) -> Time {
        let mut lot = self.lot.lock();
        lot.wakes_at = lot.deadlines.first().map_or(Time::NEVER, |&(time, _)| time);
        lot.wakes_at
    }

    /// A guest's socket has something to read.
    fn answer(&self, door: &Arc<Shared>, key: usize, rubbish: &mut Vec<u8>) {
        let mut lot = self.lot.lock();
        let stays = match lot.guests.get(key).map(|guest| &guest.kind) {
            Some(GuestKind::Lingering(socket, _)) => {
                rubbish.clear();
                matches!(
                    socket.recv_now(rubbish),
                    Ok(Received::Bytes | Received::Timeout)
                )
            }
            Some(GuestKind::Parked(_)) => false,
            None => true,
        };
        if stays {
            return;
        }
        let guest = lot.leave(&self.epoll, key);
        drop(lot);
        if let GuestKind::Parked(connection) = guest {
            super::connection::resume(door, connection);
        }
    }

    /// Drops whoever's time has come: all parked ones when the door is quiet, everybody when this is closed,
    /// which is then returned.
    fn send_off(&self, door: &Shared) -> bool {
        let now = door.clock.now();
        let (quiet, waits) = (door.is_quiet(), door.waits_for_fresh());
        let mut lot = self.lot.lock();
        let closed = lot.closed;
        let due: Vec<usize> = lot
            .deadlines
            .iter()
            .take_while(|&&(time, _)| closed || quiet || time <= now)
            .filter(|&&(time, key)| closed || time <= now || lot.is_unwanted(key, waits))
            .map(|&(_, key)| key)
            .collect();
        let gone: Vec<_> = due
            .into_iter()
            .map(|key| lot.leave(&self.epoll, key))
            .collect();
        drop(lot);
        drop(gone);
        closed
    }
}

impl Lot {
    /// Takes a guest in and says whether the poller must be woken for it; gives it back where it can't stay.
    fn enter(
        &mut self,
        epoll: &OwnedFd,
        kind: GuestKind,
        deadline: Time,
    ) -> Result<bool, GuestKind> {
        if self.closed || (kind.is_homeless() && self.homeless >= HOMELESS) {
            return Err(kind);
        }
        let entry = self.guests.vacant_entry();
        let key = entry.key();
        let name = epoll::EventData::new_u64(key as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if epoll::add(epoll, kind.socket().as_fd(), name, flags).is_err() {
            return Err(kind);
        }
        self.parked += usize::from(kind.is_parked());
        self.homeless += usize::from(kind.is_homeless());
        entry.insert(Guest { kind, deadline });
        self.deadlines.insert((deadline, key));
        Ok(deadline < self.wakes_at)
    }

    fn leave(&mut self, epoll: &OwnedFd, key: usize) -> GuestKind {
        let Guest { kind, deadline } = self.guests.remove(key);
        // Also where the socket lives on elsewhere: its events must not name this key again.
        let _ = epoll::delete(epoll, kind.socket().as_fd());
        self.deadlines.remove(&(deadline, key));
        self.parked -= usize::from(kind.is_parked());
        self.homeless -= usize::from(kind.is_homeless());
        kind
    }

    /// Whether nothing can be read from a guest.
    fn is_silent(&self, key: usize) -> bool {
        self.guests.get(key).is_some_and(|guest| {
            let socket = guest.kind.socket().as_fd();
            let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
            matches!(poll_for(&mut fds, Duration::ZERO), Ok(0))
        })
    }

    /// Whether a guest has to go now that it is quiet.
    fn is_unwanted(&self, key: usize, waits_for_fresh: bool) -> bool {
        self.guests.get(key).is_some_and(|guest| match &guest.kind {
            GuestKind::Parked(connection) => !(waits_for_fresh && connection.is_fresh()),
            GuestKind::Lingering(..) => false,
        })
    }

    fn is_parked(&self, key: usize) -> bool {
        self.guests
            .get(key)
            .is_some_and(|guest| guest.kind.is_parked())
    }
}

impl GuestKind {
    fn socket(&self) -> &Socket {
        match self {
            GuestKind::Parked(connection) => connection.socket(),
            GuestKind::Lingering(socket, _) => socket,
        }
    }

    fn is_parked(&self) -> bool {
        matches!(self, GuestKind::Parked(_))
    }

    fn is_homeless(&self) -> bool {
        matches!(self, GuestKind::Lingering(_, None))
    }
}
