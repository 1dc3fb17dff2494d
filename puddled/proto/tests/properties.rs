//! Hostile bytes, round trips and limits of every message.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use vernal_puddled_proto::limits::{
    MAX_FRAME, MAX_LEASES, MAX_METRICS, MAX_PAGE, MAX_PUDDLES, MAX_TEXT,
};
use vernal_puddled_proto::*;

const V: u8 = VERSION_MAX;

fn id() -> impl Strategy<Value = Id> {
    any::<[u8; 16]>().prop_map(Id)
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_][A-Za-z0-9._-]{0,62}"
}

fn kind() -> impl Strategy<Value = PoolKind> {
    prop_oneof![Just(PoolKind::Buffered), Just(PoolKind::Direct)]
}

fn mode() -> impl Strategy<Value = u16> {
    any::<u16>().prop_map(|m| m & 0o666)
}

fn staged() -> impl Strategy<Value = StagedPuddle> {
    (0u32..=17).prop_map(|k| StagedPuddle { size: 2 << 20 << k })
}

fn channel_name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_][A-Za-z0-9._-]{0,19}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,19}){0,2}"
}

fn segment_of() -> impl Strategy<Value = SegmentOf> {
    prop_oneof![
        any::<u64>().prop_map(|n| SegmentOf::Conn(ConnId(n))),
        any::<u64>().prop_map(|n| SegmentOf::Channel(ChannelId(n))),
    ]
}

fn rpc_request() -> impl Strategy<Value = Request> {
    let number = any::<u64>;
    let limit = 0..=MAX_PAGE as u16;
    prop_oneof![
        (
            channel_name(),
            option::of(any::<u32>()),
            option::of(any::<u32>()),
            mode()
        )
            .prop_map(|(name, owner, group, mode)| Request::ChannelOpen {
                name,
                owner,
                group,
                mode
            }),
        number().prop_map(|n| Request::ChannelClose {
            channel: ChannelId(n)
        }),
        channel_name().prop_map(|name| Request::Connect { name }),
        number().prop_map(|n| Request::Disconnect { conn: ConnId(n) }),
        (segment_of(), 0u32..=15).prop_map(|(of, k)| Request::Segment {
            of,
            size: 2 << 20 << k
        }),
        number().prop_map(|n| Request::SegmentReady {
            segment: SegmentId(n)
        }),
        number().prop_map(|n| Request::SegmentMap {
            segment: SegmentId(n)
        }),
        number().prop_map(|n| Request::SegmentDrop {
            segment: SegmentId(n)
        }),
        (option::of(channel_name()), limit.clone())
            .prop_map(|(after, limit)| Request::ChannelList { after, limit }),
        (option::of(number()), limit.clone()).prop_map(|(after, limit)| Request::ConnList {
            after: after.map(ConnId),
            limit
        }),
        (option::of(number()), limit).prop_map(|(after, limit)| Request::SegmentList {
            after: after.map(SegmentId),
            limit
        }),
        Just(Request::RpcStatus),
        id().prop_map(|pool| Request::Allocator { pool }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![pool_request(), rpc_request()]
}

fn process() -> impl Strategy<Value = ProcessInfo> {
    (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(pid, uid, gid)| ProcessInfo {
        pid,
        uid,
        gid,
    })
}

fn segment_info() -> impl Strategy<Value = SegmentInfo> {
    (any::<u64>(), segment_of(), any::<u64>(), any::<u64>()).prop_map(|(n, of, addr, size)| {
        SegmentInfo {
            segment: SegmentId(n),
            of,
            addr,
            size,
        }
    })
}

fn channel_stat() -> impl Strategy<Value = ChannelStat> {
    (
        (
            any::<u64>(),
            channel_name(),
            any::<u32>(),
            any::<u32>(),
            mode(),
        ),
        (
            process(),
            any::<u32>(),
            any::<u64>(),
            any::<u32>(),
            any::<u64>(),
        ),
    )
        .prop_map(
            |((n, name, owner, group, mode), (server, connections, connected, segments, bytes))| {
                ChannelStat {
                    channel: ChannelId(n),
                    name,
                    owner,
                    group,
                    mode,
                    server,
                    connections,
                    connected,
                    segments,
                    bytes,
                }
            },
        )
}

fn conn_stat() -> impl Strategy<Value = ConnStat> {
    (
        (any::<u64>(), any::<u64>(), channel_name()),
        (option::of(process()), option::of(process())),
        (any::<u32>(), any::<u64>()),
    )
        .prop_map(
            |((conn, channel, name), (client, server), (segments, bytes))| ConnStat {
                conn: ConnId(conn),
                channel: ChannelId(channel),
                name,
                client,
                server,
                segments,
                bytes,
            },
        )
}

fn segment_stat() -> impl Strategy<Value = SegmentStat> {
    (
        segment_info(),
        any::<bool>(),
        option::of(process()),
        vec(process(), 0..=MAX_LEASES),
    )
        .prop_map(|(info, ready, owner, leases)| SegmentStat {
            info,
            ready,
            owner,
            leases,
        })
}

fn rpc_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        any::<u64>().prop_map(|n| Reply::Channel(ChannelId(n))),
        (any::<u64>(), any::<u64>(), process()).prop_map(|(conn, channel, server)| {
            Reply::Connected(ConnInfo {
                conn: ConnId(conn),
                channel: ChannelId(channel),
                server,
            })
        }),
        segment_info().prop_map(Reply::Segment),
        any::<u32>().prop_map(|token| Reply::Allocator { token }),
        (vec(channel_stat(), 0..16), any::<bool>())
            .prop_map(|(channels, more)| Reply::Channels { channels, more }),
        (vec(conn_stat(), 0..16), any::<bool>())
            .prop_map(|(conns, more)| Reply::Conns { conns, more }),
        (vec(segment_stat(), 0..16), any::<bool>())
            .prop_map(|(segments, more)| Reply::Segments { segments, more }),
        any::<[u64; 9]>().prop_map(|n| {
            let [
                channels,
                connections,
                segments,
                segment_bytes,
                address_bytes,
                ..,
            ] = n;
            let [.., leases, orphans, connected, refused] = n;
            Reply::RpcStatus(RpcStatus {
                channels,
                connections,
                segments,
                segment_bytes,
                address_bytes,
                leases,
                orphans,
                connected,
                refused,
            })
        }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![pool_reply(), rpc_reply()]
}

fn pool_request() -> impl Strategy<Value = Request> {
    let access = prop_oneof![
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::Snapshot)
    ];
    let ids = (option::of(any::<u32>()), option::of(any::<u32>()));
    prop_oneof![
        (name(), ids.clone(), mode(), kind(), 0u64..=1 << 38).prop_map(
            |(name, (owner, group), mode, kind, size)| Request::Create {
                name,
                owner,
                group,
                mode,
                kind,
                size
            }
        ),
        (name(), access).prop_map(|(name, access)| Request::Open { name, access }),
        (id(), 0u64..=1 << 38).prop_map(|(pool, size)| Request::Grow { pool, size }),
        (id(), id()).prop_map(|(pool, puddle)| Request::Shrink { pool, puddle }),
        Just(Request::Journal),
        (0u64..=1 << 30, option::of(id())).prop_map(|(size, log)| Request::Log { size, log }),
        id().prop_map(|pool| Request::Refresh { pool }),
        id().prop_map(|pool| Request::Close { pool }),
        name().prop_map(|name| Request::Remove { name }),
        (option::of(name()), 0..=MAX_PAGE as u16)
            .prop_map(|(after, limit)| Request::List { after, limit }),
        name().prop_map(|name| Request::Stat { name }),
        (name(), mode()).prop_map(|(name, mode)| Request::SetMode { name, mode }),
        (name(), ids.clone()).prop_map(|(name, (owner, group))| Request::Chown {
            name,
            owner,
            group
        }),
        any::<u32>().prop_map(|uid| Request::QuotaGet { uid }),
        (any::<u32>(), option::of(any::<u64>()))
            .prop_map(|(uid, bytes)| Request::QuotaSet { uid, bytes }),
        name().prop_map(|name| Request::Accept { name }),
        (
            name(),
            ids,
            mode(),
            kind(),
            vec(staged(), 1..=MAX_PUDDLES),
            any::<bool>()
        )
            .prop_map(|(name, (owner, group), mode, kind, puddles, sparse)| {
                Request::ImportBegin {
                    name,
                    owner,
                    group,
                    mode,
                    kind,
                    puddles,
                    sparse,
                }
            }),
        (name(), name(), mode()).prop_map(|(from, name, mode)| Request::CloneBegin {
            from,
            name,
            mode
        }),
        id().prop_map(|import| Request::ImportFinish { import }),
        id().prop_map(|import| Request::ImportAbort { import }),
        Just(Request::Metrics),
        Just(Request::Status),
    ]
}

fn puddle() -> impl Strategy<Value = PuddleInfo> {
    (id(), any::<u64>(), any::<u64>()).prop_map(|(id, addr, size)| PuddleInfo { id, addr, size })
}

fn pool() -> impl Strategy<Value = PoolStat> {
    let condition = prop_oneof![
        Just(Condition::Ready),
        Just(Condition::Recovering),
        Just(Condition::Lingering),
        ".{0,80}".prop_map(|reason| Condition::Quarantined { reason }),
        ".{0,80}".prop_map(|reason| Condition::Damaged { reason }),
    ];
    let user = (any::<u32>(), any::<u32>(), any::<bool>()).prop_map(|(pid, uid, writes)| UseInfo {
        pid,
        uid,
        writes,
    });
    (
        (id(), name(), any::<u32>(), any::<u32>(), mode(), kind()),
        (any::<u64>(), any::<u32>(), any::<u64>(), condition),
        vec(user, 0..=16),
    )
        .prop_map(
            |(
                (id, name, owner, group, mode, kind),
                (bytes, puddles, created, condition),
                users,
            )| {
                PoolStat {
                    id,
                    name,
                    owner,
                    group,
                    mode,
                    kind,
                    bytes,
                    puddles,
                    created,
                    condition,
                    users,
                }
            },
        )
}

fn pool_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        ".{0,100}".prop_map(|t| Reply::Failed(Failure::new(ErrorCode::Busy, t))),
        Just(Reply::Done),
        pool().prop_map(Reply::Pool),
        (pool(), vec(puddle(), 0..=MAX_PUDDLES))
            .prop_map(|(pool, puddles)| Reply::Opened { pool, puddles }),
        puddle().prop_map(Reply::Grown),
        (id(), ".{0,60}", any::<u64>())
            .prop_map(|(id, name, max_len)| Reply::Journal(JournalInfo { id, name, max_len })),
        (id(), id(), id(), ".{0,60}", any::<u64>(), any::<u32>()).prop_map(
            |(id, log, space, name, size, position)| Reply::Log(LogInfo {
                id,
                log,
                position,
                space,
                size,
                name
            })
        ),
        (vec(pool(), 0..8), any::<bool>()).prop_map(|(pools, more)| Reply::Pools { pools, more }),
        (pool(), vec(puddle(), 0..=MAX_PUDDLES))
            .prop_map(|(pool, puddles)| Reply::Stat { pool, puddles }),
        (any::<u32>(), any::<u64>(), option::of(any::<u64>()))
            .prop_map(|(uid, used, limit)| Reply::Quota { uid, used, limit }),
        (id(), vec(puddle(), 0..=MAX_PUDDLES))
            .prop_map(|(import, puddles)| Reply::Import { import, puddles }),
        ".{0,200}".prop_map(Reply::Metrics),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_come_back(request in request()) {
        let packet = request.encode(V).unwrap();
        prop_assert!(packet.len() <= MAX_FRAME);
        prop_assert_eq!(Request::decode(V, &packet).unwrap(), request);
    }

    #[test]
    fn replies_come_back(reply in reply()) {
        let packet = reply.encode(V).unwrap();
        prop_assert_eq!(Reply::decode(V, &packet).unwrap(), reply);
    }

    #[test]
    fn announces_come_back(n in any::<u64>(), client in process(), at in any::<usize>(), to in any::<u8>()) {
        let announce = Announce::Client { conn: ConnId(n), client };
        let mut packet = announce.encode(V).unwrap();
        prop_assert_eq!(Announce::decode(V, &packet).unwrap(), announce);
        let len = packet.len();
        packet[at % len] = to;
        let _ = Announce::decode(V, &packet);
    }

    #[test]
    fn an_older_version_has_no_channels(request in rpc_request(), reply in rpc_reply(), old in pool_request()) {
        let is_too_old = |e: ProtoError| matches!(e, ProtoError::TooOld { needs: 2, agreed: 1, .. });
        prop_assert!(is_too_old(request.encode(1).unwrap_err()));
        prop_assert!(is_too_old(reply.encode(1).unwrap_err()));
        let mut packet = request.encode(V).unwrap();
        packet[0] = 1;
        prop_assert!(is_too_old(Request::decode(1, &packet).unwrap_err()));
        // What version 1 has is byte for byte the same in version 2.
        let (mut one, two) = (old.encode(1).unwrap(), old.encode(V).unwrap());
        one[0] = V;
        prop_assert_eq!(one, two);
    }

    #[test]
    fn arbitrary_bytes_are_parsed_or_refused(bytes in vec(any::<u8>(), 0..2048)) {
        let _ = Request::decode(V, &bytes);
        let _ = Reply::decode(V, &bytes);
        let _ = Announce::decode(V, &bytes);
        let _ = Hello::decode(&bytes);
        let _ = Welcome::decode(&bytes);
    }

    #[test]
    fn damaged_requests_are_parsed_or_refused(
        request in request(), at in any::<usize>(), to in any::<u8>(), cut in any::<usize>()
    ) {
        let mut packet = request.encode(V).unwrap();
        let len = packet.len();
        packet[at % len] = to;
        if let Ok(parsed) = Request::decode(V, &packet) {
            // Whatever is accepted keeps the limits: it can be encoded again.
            prop_assert!(parsed.encode(V).is_ok());
        }
        packet.truncate(cut % len);
        let _ = Request::decode(V, &packet);
    }

    #[test]
    fn damaged_replies_are_parsed_or_refused(
        reply in reply(), at in any::<usize>(), to in any::<u8>()
    ) {
        let mut packet = reply.encode(V).unwrap();
        let len = packet.len();
        packet[at % len] = to;
        let _ = Reply::decode(V, &packet);
    }

    #[test]
    fn hello_comes_back_and_versions_are_chosen(min in 0u8..4, max in 0u8..4, client in ".{0,50}") {
        let hello = Hello { min, max, client };
        prop_assert_eq!(Hello::decode(&hello.encode().unwrap()).unwrap(), hello.clone());
        match choose_version(&hello) {
            Ok(v) => prop_assert!((min..=max).contains(&v) && (VERSION_MIN..=VERSION_MAX).contains(&v)),
            Err(_) => prop_assert!(max < VERSION_MIN || min > VERSION_MAX || min > max),
        }
    }
}

#[test]
fn oversized_packets_are_refused_before_they_are_parsed() {
    let mut packet = vec![0xff; MAX_FRAME + 1];
    packet[0] = V;
    assert!(matches!(
        Request::decode(V, &packet),
        Err(ProtoError::Oversized { len, limit: MAX_FRAME }) if len == MAX_FRAME + 1
    ));
    assert!(matches!(
        Hello::decode(&packet),
        Err(ProtoError::Oversized { .. })
    ));
}

#[test]
fn a_list_length_that_lies_costs_nothing() {
    // ImportBegin with a name and then a list of 2^40 puddles that are not there.
    let request = Request::ImportBegin {
        name: "a".into(),
        owner: None,
        group: None,
        mode: 0,
        kind: PoolKind::Buffered,
        puddles: vec![StagedPuddle { size: 2 << 20 }],
        sparse: false,
    };
    let mut packet = request.encode(V).unwrap();
    // version, variant, length + name, owner, group, mode, kind: the list's length is the next byte.
    let at = 1 + 1 + 2 + 1 + 1 + 1 + 1;
    assert_eq!(packet[at], 1);
    packet.splice(at..=at, [0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
    assert!(matches!(
        Request::decode(V, &packet),
        Err(ProtoError::Malformed(_))
    ));
}

#[test]
fn limits_hold_on_both_sides() {
    let too_long = Request::List {
        after: None,
        limit: MAX_PAGE as u16 + 1,
    };
    assert!(matches!(too_long.encode(V), Err(ProtoError::Limit { .. })));
    let many = Request::ImportBegin {
        name: "a".into(),
        owner: None,
        group: None,
        mode: 0,
        kind: PoolKind::Buffered,
        puddles: vec![StagedPuddle { size: 2 << 20 }; MAX_PUDDLES + 1],
        sparse: false,
    };
    assert!(matches!(many.encode(V), Err(ProtoError::Limit { .. })));
    let executable = Request::SetMode {
        name: "a".into(),
        mode: 0o755,
    };
    assert!(matches!(
        executable.encode(V),
        Err(ProtoError::Value { value: 0o755, .. })
    ));
    let odd = Request::ImportBegin {
        name: "a".into(),
        owner: None,
        group: None,
        mode: 0,
        kind: PoolKind::Buffered,
        puddles: vec![StagedPuddle { size: 3 << 20 }],
        sparse: false,
    };
    assert!(matches!(odd.encode(V), Err(ProtoError::Value { .. })));
    for size in [0, 1, 4096, 3 << 20, 1 << 37, u64::MAX] {
        let segment = Request::Segment {
            of: SegmentOf::Conn(ConnId(1)),
            size,
        };
        assert!(matches!(segment.encode(V), Err(ProtoError::Value { .. })));
    }
    let leases = SegmentStat {
        info: SegmentInfo {
            segment: SegmentId(1),
            of: SegmentOf::Channel(ChannelId(1)),
            addr: 0,
            size: 0,
        },
        ready: true,
        owner: None,
        leases: vec![
            ProcessInfo {
                pid: 1,
                uid: 1,
                gid: 1
            };
            MAX_LEASES + 1
        ],
    };
    let segments = Reply::Segments {
        segments: vec![leases],
        more: false,
    };
    assert!(matches!(segments.encode(V), Err(ProtoError::Limit { .. })));
    assert!(
        Reply::Metrics("x".repeat(MAX_METRICS + 1))
            .encode(V)
            .is_err()
    );
    let long = Failure::new(ErrorCode::Busy, "ü".repeat(MAX_TEXT));
    assert!(long.text.len() <= MAX_TEXT);
}

#[test]
fn another_version_is_named() {
    let mut packet = Request::Status.encode(V).unwrap();
    packet[0] = 9;
    let e = Request::decode(V, &packet).unwrap_err();
    assert!(e.to_string().contains("version 9"), "{e}");
    packet.push(0);
    packet[0] = V;
    assert_eq!(Request::decode(V, &packet), Err(ProtoError::Trailing(1)));
}
