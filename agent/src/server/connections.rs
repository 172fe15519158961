//! Connections of the host: accepting, greeting, and serving those that carry messages.

use std::rc::Rc;

use stockade_protocol::agent::{
    Hello, HelloReply, MAGIC, OLDEST_VERSION, ProcessCommand, ProcessId, Purpose, Response, Stream, VERSION,
};

use super::{Server, Target};
use crate::{
    connection::{Closed, Connection, Role},
    error::{ErrorKind, Result, error},
    poller::Token,
    process::Phase,
    vsock,
};

/// Largest number of connections that the host may have open, not counting streams.
const MAX_CONNECTIONS: usize = 4096;

impl Server {
    /// Accepts the host's new connections.
    pub(super) fn accept(&mut self) {
        while let Some(socket) = vsock::accept(&self.listener) {
            if self.connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            let connection = Connection::new(socket);
            // Without a registration the connection is closed, which the host sees.
            if let Ok(token) = self.poller.add(&connection, Target::Connection) {
                self.connections.insert(token, connection);
            }
        }
    }

    /// Reads the messages of a connection, and answers them.
    pub(super) fn serve_connection(&mut self, token: Token) {
        if self.try_serve(token).is_err() {
            self.close(token);
        }
    }

    fn try_serve(&mut self, token: Token) -> Result<(), Closed> {
        while let Some(connection) = self.connections.get_mut(&token) {
            connection.flush()?;
            match connection.role.clone() {
                Role::Greeting => match connection.receive()? {
                    Some(hello) => self.greet(token, hello)?,
                    None => return Ok(()),
                },
                Role::Control { busy: true } => {
                    // Other requests are done all the same.
                    let abandoned = connection.has_ended() && self.is_freezing_for(token);
                    return if abandoned { Err(Closed) } else { Ok(()) };
                }
                Role::Control { busy: false } => match connection.receive()? {
                    Some(request) => {
                        connection.role = Role::Control { busy: true };
                        self.serve_request(token, request);
                    }
                    None => return Ok(()),
                },
                Role::Process(id) => match connection.receive()? {
                    Some(command) => self.obey(&id, command),
                    None => return Ok(()),
                },
                // The host sends nothing on such a connection.
                Role::Events(_) | Role::Waiting(..) | Role::WaitingForQuery => {
                    match connection.receive::<()>()? {
                        Some(()) => return Err(Closed),
                        None => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Answers a request that was waiting.
    pub(super) fn respond(&mut self, token: Token, response: Response) {
        // The host may have closed the connection; the request is carried out in any case.
        let Some(connection) = self.connections.get_mut(&token) else { return };
        connection.role = Role::Control { busy: false };
        if connection.send(&response).is_err() {
            self.close(token);
        } else {
            self.again.push(Target::Connection(token));
        }
    }

    /// Forgets a connection; what it stood for ends with it.
    pub(super) fn close(&mut self, token: Token) {
        self.poller.forget(token);
        self.confinements.remove(&token);
        let Some(connection) = self.connections.remove(&token) else { return };
        match connection.role {
            Role::Events(id) => self.dismiss(&id, token),
            Role::Waiting(id, number) => self.dismiss_host(&id, number, token),
            Role::WaitingForQuery => self.dismiss_resolver(token),
            Role::Control { busy: true } => self.abandon_freezing(token),
            Role::Process(_) | Role::Control { busy: false } | Role::Greeting => {}
        }
        self.abandon(token);
    }

    fn greet(&mut self, token: Token, hello: Hello) -> Result<(), Closed> {
        if hello.magic != MAGIC {
            return Err(Closed);
        }
        match self.welcome(token, hello) {
            Ok(Welcomed::Messages) => Ok(()),
            Ok(Welcomed::Stream(id, stream)) => self.attach_stream(token, id, stream),
            Ok(Welcomed::Forward(port)) => self.begin_forward(token, port),
            Ok(Welcomed::Waiting(id, number)) => {
                self.serve_client(&id, number);
                Ok(())
            }
            Ok(Welcomed::WaitingForQuery) => {
                self.resolve();
                Ok(())
            }
            Err(refusal) => {
                let connection = self.connections.get_mut(&token).ok_or(Closed)?;
                connection.send(&HelloReply::Refused(refusal))?;
                Err(Closed)
            }
        }
    }

    fn welcome(&mut self, token: Token, hello: Hello) -> Result<Welcomed> {
        if !(OLDEST_VERSION..=VERSION).contains(&hello.version) {
            let message = format!(
                "the agent speaks protocol versions {OLDEST_VERSION} to {VERSION}, not {}",
                hello.version
            );
            return Err(error(ErrorKind::Version, message));
        }
        match hello.purpose {
            Purpose::Control => {
                self.accept_role(token, Role::Control { busy: false });
                Ok(Welcomed::Messages)
            }
            Purpose::Process(id) => {
                let (id, process) = self.process(&id)?;
                if process.connection.is_some() {
                    let message = format!("process of container {} has its connection already", id.container);
                    return Err(error(ErrorKind::Exists, message));
                }
                (process.requester, process.connection) = (None, Some(token));
                self.accept_role(token, Role::Process(id.clone()));
                self.report_exit(&id);
                Ok(Welcomed::Messages)
            }
            Purpose::Events(id) => {
                let init = self.admit(&id, token)?;
                self.accept_role(token, Role::Events(init));
                Ok(Welcomed::Messages)
            }
            Purpose::Stream(id, stream) => {
                let (id, process) = self.process(&id)?;
                match process.phase {
                    Phase::Created => Ok(Welcomed::Stream(id, stream)),
                    _ => {
                        Err(error(ErrorKind::WrongState, "streams are attached before the start".to_owned()))
                    }
                }
            }
            Purpose::Forward(port) => Ok(Welcomed::Forward(port)),
            Purpose::Socket(id, number) => {
                let init = self.admit_host(token, &id, number)?;
                Ok(Welcomed::Waiting(init, number))
            }
            Purpose::Resolver => self.admit_resolver(token).map(|()| Welcomed::WaitingForQuery),
        }
    }

    fn accept_role(&mut self, token: Token, role: Role) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.role = role;
            // A connection that cannot be written to reports its end to the loop.
            let _ = connection.send(&HelloReply::Welcome);
        }
    }

    fn attach_stream(&mut self, token: Token, id: Rc<ProcessId>, stream: Stream) -> Result<(), Closed> {
        let mut connection = self.connections.remove(&token).ok_or(Closed)?;
        self.poller.remove(&connection, token);
        let process = self.processes.get_mut(&id).ok_or(Closed)?;
        if let Err(refusal) = process.stdio.can_attach(stream) {
            return connection.send(&HelloReply::Refused(refusal));
        }
        connection.send(&HelloReply::Welcome)?;
        process.stdio.attach(stream, connection.into_stream()?);
        self.watch_stream(&id, stream);
        Ok(())
    }

    fn obey(&mut self, id: &Rc<ProcessId>, command: ProcessCommand) {
        let Some(process) = self.processes.get(id) else { return };
        match command {
            // The process may end before the signal arrives; the host gets a report, as for every end.
            ProcessCommand::Signal(signal) if process.exit().is_none() => {
                let _ = crate::signal::send(process.pid, signal);
            }
            ProcessCommand::Signal(_) => {}
            ProcessCommand::Resize(size) => process.stdio.resize(size),
            ProcessCommand::Plain => process.stdio.be_plain(),
            ProcessCommand::Changed => self.refresh_atomic_volumes_later(id),
        }
    }
}

/// What a connection is after its greeting.
enum Welcomed {
    Messages,
    Stream(Rc<ProcessId>, Stream),
    Forward(u16),
    /// It waits for a client of a socket, and gets the reply when one has come.
    Waiting(Rc<ProcessId>, u16),
    /// It waits for a query, likewise.
    WaitingForQuery,
}
