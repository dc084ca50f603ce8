use futures_util::FutureExt;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::*;

/// A pipe, and the server's end of it with room for so many bytes on their way.
fn pipe(room: usize) -> (Arc<Pipe>, DuplexStream) {
    let (near, far) = tokio::io::duplex(room);
    (Arc::new(Pipe::new(Box::new(near))), far)
}

fn ask(pipe: &Arc<Pipe>, word: &str) -> JoinHandle<Answer> {
    let (pipe, command) = (pipe.clone(), wire::command(&[word.as_bytes()]));
    tokio::spawn(async move { pipe.ask(command).await })
}

/// What comes in one reading.
async fn heard(far: &mut DuplexStream) -> String {
    let mut buffer = [0; 4096];
    let length = far.read(&mut buffer).await.expect("the pipe stands");
    String::from_utf8_lossy(&buffer[..length]).replace("*1\r\n$1\r\n", "").replace("\r\n", " ")
}

#[tokio::test]
async fn what_is_asked_in_one_turn_goes_in_one_write_and_each_gets_its_own_answer() {
    let (pipe, mut far) = pipe(4096);
    let asked = ["a", "b", "c"].map(|word| ask(&pipe, word));
    assert_eq!(heard(&mut far).await, "a b c ");
    for part in [&b":1\r\n:"[..], b"2\r", b"\n-ERR no\r\n"] {
        far.write_all(part).await.unwrap();
        tokio::task::yield_now().await;
    }
    let [one, two, three] = asked;
    assert_eq!(one.await.unwrap().unwrap(), &b":1\r\n"[..]);
    assert_eq!(two.await.unwrap().unwrap(), &b":2\r\n"[..]);
    assert_eq!(three.await.unwrap().unwrap(), &b"-ERR no\r\n"[..]);
}

#[tokio::test]
async fn who_stops_waiting_leaves_the_others_their_answers() {
    let (pipe, mut far) = pipe(4096);
    let (early, kept) = (ask(&pipe, "a"), ask(&pipe, "b"));
    assert_eq!(heard(&mut far).await, "a b ");
    early.abort();
    // This one has asked, and leaves before the driver runs.
    let unsent = pipe.ask(wire::command(&[b"c"]));
    assert!(unsent.now_or_never().is_none());
    let last = ask(&pipe, "d");
    assert_eq!(heard(&mut far).await.trim_end(), "d");
    far.write_all(b":1\r\n:2\r\n:4\r\n").await.unwrap();
    assert_eq!(kept.await.unwrap().unwrap(), &b":2\r\n"[..]);
    assert_eq!(last.await.unwrap().unwrap(), &b":4\r\n"[..]);
    assert_eq!(pipe.heard(), 3, "the answer to who had left came as well");
}

#[tokio::test]
async fn an_answer_without_end_ends_the_connection() {
    let (near, mut far) = tokio::io::duplex(4096);
    let mut driver = Driver::new(Box::new(near), Arc::default());
    driver.most = 100;
    let driving = tokio::spawn(driver.run());
    let part = b"$1\r\na\r\n".repeat(20);
    let sent = far.write_all(&[b"*536870912\r\n", &part[..]].concat()).await;
    assert!(sent.is_ok());
    driving.await.unwrap();
}

#[tokio::test]
async fn while_nothing_can_be_written_what_nobody_waits_for_takes_no_memory() {
    let (pipe, _far) = pipe(16);
    for _ in 0..20 * FEW {
        let asked = ask(&pipe, &"x".repeat(100));
        tokio::task::yield_now().await;
        asked.abort();
    }
    assert!(pipe.outbox.lock().questions.len() <= 2 * FEW);
}

#[tokio::test]
async fn when_the_connection_ends_all_hear_of_it_and_so_does_who_asks_later() {
    let ends: [(&str, Option<&[u8]>); 3] =
        [("closed", None), ("unasked", Some(b":1\r\n:2\r\n:3\r\n")), ("nonsense", Some(b"HTTP/1.1 400\r\n"))];
    for (what, last_words) in ends {
        let (pipe, mut far) = pipe(4096);
        let asked = [ask(&pipe, "a"), ask(&pipe, "b")];
        heard(&mut far).await;
        if let Some(last_words) = last_words {
            far.write_all(last_words).await.unwrap();
        } else {
            drop(far);
        }
        for asked in asked {
            assert!(what == "unasked" || asked.await.unwrap().unwrap_err().is_final, "{what}");
        }
        while !pipe.driver.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(ask(&pipe, "c").await.unwrap().unwrap_err().is_final, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_question_waits_for_ever() {
    let (pipe, _far) = pipe(4096);
    let begun = Instant::now();
    let failure = ask(&pipe, "a").await.unwrap().unwrap_err();
    assert!(failure.was_late && failure.is_final);
    assert!(begun.elapsed() >= LONGEST_ANSWER && begun.elapsed() <= LONGEST_ANSWER + 2 * STEP);
}

/// Several that lie in one reading, one that fills a reading, and one that doesn't fit.
#[tokio::test]
async fn answers_are_whole_however_many_are_kept() {
    let (pipe, mut far) = pipe(1 << 20);
    let lengths = [10, COPIED, 20, 2 * COPIED, ROOM, ROOM + 5_000, 3 * ROOM, 1, 2 << 20];
    let asked: Vec<_> = lengths.iter().map(|_| ask(&pipe, "a")).collect();
    let answers: Vec<Vec<u8>> = (b'a'..).zip(lengths).map(|(byte, length)| answer(byte, length)).collect();
    assert_eq!(heard(&mut far).await.matches('a').count(), lengths.len());
    far.write_all(&answers.concat()).await.unwrap();
    let mut told = Vec::new();
    for one in asked {
        told.push(one.await.unwrap().unwrap());
    }
    for (one, expected) in told.iter().zip(&answers) {
        assert!(one == expected, "{} bytes, of which {} came", expected.len(), one.len());
    }
}

/// Those that nobody keeps give back the memory of the piece they were copied to, and who keeps one keeps no more than a piece.
#[tokio::test]
async fn short_answers_share_memory_that_is_used_again() {
    let (pipe, mut far) = pipe(1 << 20);
    let mut kept: Vec<Bytes> = Vec::new();
    let mut places = Vec::new();
    for turn in 0..20 {
        let asked = ["a", "b", "c"].map(|word| ask(&pipe, word));
        assert_eq!(heard(&mut far).await, "a b c ");
        let sent = [b'a', b'b', b'c'].map(|byte| answer(byte, 1000 + turn));
        far.write_all(&sent.concat()).await.unwrap();
        for (one, sent) in asked.into_iter().zip(&sent) {
            let one = one.await.unwrap().unwrap();
            assert_eq!(one, sent);
            places.push(one.as_ptr() as usize);
            kept.extend((turn == 10).then_some(one));
        }
    }
    let apart = |places: &[usize]| places.iter().max().zip(places.iter().min()).map(|(last, first)| last - first);
    assert!(apart(&places[..30]) < Some(PIECE), "each turn is in the same piece");
    assert!(kept.iter().all(|kept| places[33..].iter().all(|place| kept.as_ptr() as usize != *place)));
    for (kept, byte) in kept.iter().zip(*b"abc") {
        assert_eq!(kept, &answer(byte, 1010), "what is kept stays as it is");
    }
}

#[tokio::test]
async fn a_large_answer_keeps_hardly_more_memory_than_it_has() {
    for length in [ROOM + 5_000, 3 * ROOM, 2 << 20] {
        let (pipe, mut far) = pipe(1 << 20);
        let asked = ask(&pipe, "a");
        assert_eq!(heard(&mut far).await, "a ");
        far.write_all(&answer(b'a', length)).await.unwrap();
        let told = asked.await.unwrap().unwrap();
        drop(pipe);
        // Its driver ends with it, and the buffer that it reads into.
        while far.write_all(b":1\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
        let memory = told.try_into_mut().expect("nobody else has it").capacity();
        assert!(memory <= (length + 32) / 7 * 8, "{length} bytes keep {memory}");
    }
}

fn answer(byte: u8, length: usize) -> Vec<u8> {
    [format!("${length}\r\n").as_bytes(), &vec![byte; length], b"\r\n"].concat()
}

/// Nothing is made room for that is only said.
#[tokio::test]
async fn the_length_that_an_answer_claims_takes_no_memory() {
    let (near, mut far) = tokio::io::duplex(4096);
    let mut driver = Driver::new(Box::new(near), Arc::default());
    far.write_all(b"$536870912\r\nabc").await.unwrap();
    for _ in 0..2 {
        let read = std::future::poll_fn(|context| Poll::Ready(driver.read(context))).await;
        assert!(matches!(read, Poll::Ready(Ok(())) | Poll::Pending));
    }
    assert!(driver.needed > 1 << 28 && driver.read.capacity() <= 4 << 20, "{}", driver.read.capacity());
}
