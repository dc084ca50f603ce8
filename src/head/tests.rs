use super::*;

fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    map
}

#[test]
fn a_stored_head_is_equal_and_shares_no_read_buffer() {
    let buffer = Bytes::from(vec![b'x'; 4096]);
    let mut original = head(&[("etag", "\"a\""), ("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("content-type", "")]);
    original.append("x-a", HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap());
    original.append("x-a", HeaderValue::from_bytes(b"\xfftext").unwrap());
    original.append("location", HeaderValue::from_maybe_shared(buffer.slice(10..20)).unwrap());
    let reserved = [header::AGE, HeaderName::from_static("x-cache")];
    let (stored, content) = SharedHeads::default().store(&original, &reserved, buffer.slice(..100));
    assert_eq!(stored.to_map_without(&reserved), original);
    assert_eq!(content, buffer.slice(..100));
    let filled = stored.to_map(|places| {
        places.put(HeaderValue::from(7));
        places.put(HeaderValue::from_static("HIT"));
    });
    assert_eq!(
        (&filled["age"], &filled["x-cache"], &filled["etag"]),
        (&"7".parse().unwrap(), &"HIT".parse().unwrap(), &"\"a\"".parse().unwrap())
    );
    let size: usize = original.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert_eq!(stored.size(), size + "agex-cache".len());
    drop(original);
    assert!(buffer.is_unique());
}

#[test]
fn what_was_in_a_place_gives_its_memory_back() {
    let buffer = Bytes::from(vec![b'x'; 100]);
    for before in [buffer.slice(..10), buffer.slice(..0), Bytes::new()] {
        let mut map = HeaderMap::new();
        map.insert(header::AGE, HeaderValue::from_maybe_shared(before).unwrap());
        Places(map.values_mut()).put(HeaderValue::from_static("7"));
        assert_eq!(map[header::AGE], "7");
    }
    assert!(buffer.is_unique());
}

#[test]
fn heads_that_differ_in_own_fields_are_shared_and_others_not() {
    let heads = SharedHeads::default();
    let store = |fields: &[(&'static str, &str)]| heads.store(&head(fields), &[], Bytes::new()).0;
    let one = store(&[("etag", "\"a\""), ("x", "1")]);
    let same = store(&[("etag", "\"b\""), ("x", "1")]);
    let other = store(&[("etag", "\"b\""), ("x", "2")]);
    assert!(Arc::ptr_eq(&one.shared, &same.shared) && !Arc::ptr_eq(&one.shared, &other.shared));
    assert_eq!(same.get(&header::ETAG).unwrap(), "\"b\"");
    let often: Vec<_> = (0..9).map(|n| store(&[("etag", &n.to_string()), ("x", "1")])).collect();
    assert_eq!(often[8].to_map(|_| ()), head(&[("etag", "8"), ("x", "1")]), "also with values that last");
}

#[test]
fn memory_that_is_given_away_is_bounded() {
    let heads = SharedHeads::default();
    for n in 0..5000 {
        let value = format!("{n}-{}", "x".repeat(100));
        for _ in 0..OFTEN {
            heads.store(&head(&[("x", &value)]), &[], Bytes::new());
        }
    }
    let known = heads.known.lock().unwrap();
    assert!(known.leaked <= MOST_LEAKED && known.heads.len() <= MOST_HEADS);
}

#[test]
fn own_fields_are_known_by_their_places() {
    for (place, name) in OWN.iter().enumerate() {
        assert_eq!(own_place(name), Some(place), "{name}");
    }
    assert_eq!(own_place(&header::CONTENT_TYPE), None);
}

#[test]
fn repeated_validators_are_none() {
    let (stored, _) = SharedHeads::default().store(&head(&[("etag", "\"a\""), ("etag", "\"b\"")]), &[], Bytes::new());
    assert_eq!(stored.etag(), None);
    assert_eq!(stored.to_map(|_| ()).get_all("etag").iter().count(), 2);
}
