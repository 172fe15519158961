use super::*;
use proptest::prelude::*;
use stockade_protocol::network::Hop;

/// A guest that takes more away than it is told to, as kernels do: with an address all others of its interface and the
/// routes through it, and the same when the interface goes up or down.
#[derive(Default)]
struct Guest(Picture);

impl Guest {
    fn interface(&mut self, index: u32) -> &mut Interface {
        self.0.interfaces.iter_mut().find(|interface| interface.link.interface == index).expect("it is bound")
    }

    fn flush(&mut self, index: u32) {
        let interface = self.interface(index);
        interface.addresses.clear();
        interface.neighbours.clear();
        self.0.routes.retain(|route| route.hops.iter().all(|hop| hop.interface != index));
    }

    fn take(&mut self, step: NetworkStep) {
        match step {
            NetworkStep::Bind { interface } => {
                let name = format!("new{interface}");
                let link = Link { interface, name, mac: [0; 6], mtu: 0, up: false, arp: true };
                self.0.interfaces.push(Interface { link, addresses: vec![], neighbours: vec![] });
            }
            NetworkStep::Unbind { interface } => {
                self.flush(interface);
                self.0.interfaces.retain(|bound| bound.link.interface != interface);
            }
            NetworkStep::Link(link) => {
                let taken = self.0.interfaces.iter().find(|other| other.link.name == link.name);
                assert!(
                    taken.is_none_or(|other| other.link.interface == link.interface),
                    "{} is taken",
                    link.name
                );
                let index = link.interface;
                if self.interface(index).link.up != link.up {
                    self.flush(index);
                }
                self.interface(index).link = link;
            }
            NetworkStep::AddAddress(address) => {
                let addresses = &mut self.interface(address.interface).addresses;
                addresses.retain(|other| (other.address, other.prefix) != (address.address, address.prefix));
                addresses.push(address);
            }
            NetworkStep::RemoveAddress(address) => {
                self.flush(address.interface);
            }
            NetworkStep::AddRoute(route) => {
                assert!(route.hops.iter().all(|hop| self.interface(hop.interface).link.interface > 0));
                if !self.0.routes.contains(&route) {
                    self.0.routes.push(route);
                }
            }
            NetworkStep::RemoveRoute(route) => self.0.routes.retain(|other| *other != route),
            NetworkStep::AddNeighbour(neighbour) => {
                let neighbours = &mut self.interface(neighbour.interface).neighbours;
                neighbours.retain(|other| other.address != neighbour.address);
                neighbours.push(neighbour);
            }
            NetworkStep::RemoveNeighbour(neighbour) => {
                self.interface(neighbour.interface).neighbours.retain(|other| *other != neighbour);
            }
        }
    }

    fn sorted(picture: &Picture) -> Picture {
        let mut picture = picture.clone();
        picture.interfaces.sort_by_key(|interface| interface.link.interface);
        for interface in &mut picture.interfaces {
            interface.addresses.sort_by_key(|address| address.address);
            interface.neighbours.sort_by_key(|neighbour| neighbour.address);
        }
        picture.routes.sort_by_key(|route| format!("{route:?}"));
        picture
    }
}

fn route(interface: u32, last: u8) -> Route {
    Route {
        destination: [192, 0, 2, last].into(),
        prefix: 32,
        hops: vec![Hop { interface, gateway: None, onlink: false, weight: 0 }],
        source: None,
        table: 254,
        kind: 1,
        scope: 0,
        protocol: 3,
        tos: 0,
        priority: 0,
        metrics: vec![],
    }
}

fn address(interface: u32, last: u8, flags: u32) -> Address {
    Address {
        interface,
        address: [198, 51, 100, last].into(),
        prefix: 24,
        peer: None,
        broadcast: None,
        scope: 0,
        flags,
        metric: 0,
        lifetimes: None,
    }
}

prop_compose! {
    fn interface(interface: u32)(
        mtu in 1400..1402u32,
        up: bool,
        addresses in proptest::collection::btree_map(0..3u8, 0..2u32, 0..3),
        neighbours in proptest::collection::btree_map(0..3u8, 0..2u8, 0..3),
    ) -> Interface {
        Interface {
            link: Link { interface, name: String::new(), mac: [2; 6], mtu, up, arp: true },
            addresses: addresses.into_iter().map(|(last, flags)| address(interface, last, flags)).collect(),
            neighbours: neighbours
                .into_iter()
                .map(|(last, mac)| Neighbour { interface, address: [198, 51, 100, last].into(), mac: [mac; 6] })
                .collect(),
        }
    }
}

prop_compose! {
    fn picture()(
        all in [interface(2), interface(3), interface(4)],
        names in Just(["eth0", "eth1", "eth2"]).prop_shuffle(),
        there in any::<[bool; 3]>(),
        routes in proptest::collection::btree_set((2..5u32, 0..4u8), 0..5),
    ) -> Picture {
        let mut interfaces: Vec<Interface> = all.into_iter().collect();
        for (interface, name) in interfaces.iter_mut().zip(names) {
            interface.link.name = name.to_owned();
        }
        let mut there = there.into_iter();
        interfaces.retain(|_| there.next().unwrap_or(false));
        let is_there = |index: &u32| interfaces.iter().any(|interface| interface.link.interface == *index);
        let routes = routes.iter().filter(|(index, _)| is_there(index)).map(|(index, last)| route(*index, *last)).collect();
        Picture { interfaces, routes }
    }
}

proptest! {
    #[test]
    fn the_guest_gets_what_the_host_has(looks in proptest::collection::vec(picture(), 1..4)) {
        let mut guest = Guest::default();
        let mut told = Picture::default();
        for seen in looks {
            steps(&told, &seen).into_iter().for_each(|step| guest.take(step));
            prop_assert_eq!(Guest::sorted(&guest.0), Guest::sorted(&seen));
            prop_assert_eq!(steps(&seen, &seen), vec![]);
            told = seen;
        }
    }
}

#[test]
fn running_lifetimes_are_no_change() {
    let seen = |left| Picture {
        interfaces: vec![Interface {
            link: Link { interface: 2, name: "eth0".into(), mac: [2; 6], mtu: 1500, up: true, arp: true },
            addresses: vec![Address { lifetimes: Some((left, left)), ..address(2, 1, 0) }],
            neighbours: vec![],
        }],
        routes: vec![],
    };
    assert_eq!(steps(&seen(60), &seen(59)), vec![]);
    assert!(!steps(&Picture::default(), &seen(60)).is_empty());
}
