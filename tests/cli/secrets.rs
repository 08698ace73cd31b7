//! What opens a server and who it is: passwords and signatures in addresses, certificates, proxies.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::{Answer, Asked, Greet, Server, Stream, head};
use crate::support::{Ran, Space};

const PIPELINE: &str = "stages:\n  a: {kind: command, with: {run: 'echo made > ${out.n}', outputs: {n: n}}}\n";

fn made_and_empty() -> (Space, Space) {
    let (made, empty) = (Space::new(), Space::new());
    made.write("p.yaml", PIPELINE);
    made.ran(&[]);
    empty.write("p.yaml", PIPELINE);
    (made, empty)
}

/// The address of a server with something before its host.
fn with(credentials: &str, url: &str) -> String {
    url.replacen("://", &format!("://{credentials}@"), 1)
}

/// Lets in who says this, in the header that browsers use.
fn guarded(password: &str) -> Box<Answer> {
    let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(password));
    Box::new(move |asked: &Asked, to: &mut dyn Write| {
        let is_known = asked.header("authorization") == Some(&expected);
        if !is_known {
            _ = head(to, "401 Unauthorized", "Content-Length: 0");
        }
        !is_known
    })
}

/// All that a run has said and kept, in which no secret may stand.
fn said_and_kept(space: &Space, ran: &Ran) -> String {
    let mut text = ran.seen();
    for folder in ["actions", "runs", "objects", "tmp", "fetched"] {
        for file in space.cached_files(folder) {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(file).unwrap()));
        }
    }
    text
}

#[test]
fn passwords_are_sent_as_they_are_and_shown_nowhere() {
    let (made, empty) = made_and_empty();
    let server = Server::start(made.path().join("cache"), guarded("u@lab:p w/ü"));
    let address = with("u%40lab:p%20w%2F%C3%BC", &server.url);
    for args in [&["run", "p.yaml", "a", "--json"][..], &["plan", "p.yaml"], &["pull", "p.yaml"]] {
        let ran = empty.run(&[args, &["--remote", &address]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        assert!(!said_and_kept(&empty, &ran).contains("%20w"));
    }
    assert_eq!(empty.ran(&["a", "--offline"]), [""; 0], "it was fetched");
    for wrong in ["u:hunter2", "hunter2", ":hunter2", "u:hun%20ter2", "u:hunter2@x"] {
        let space = Space::new();
        space.write("p.yaml", PIPELINE);
        for args in [&["run", "p.yaml", "--json"][..], &["plan", "p.yaml"], &["pull", "p.yaml"], &["push", "p.yaml"]] {
            let ran = space.run(&[args, &["--remote", &with(wrong, &server.url)]].concat());
            let text = said_and_kept(&space, &ran);
            assert!(!text.contains("hunter2") && !text.contains("ter2"), "{args:?}: {text}");
        }
    }
    // Nor where the variable is shown.
    let mut help = empty.command(&["run", "--help"]);
    let help = Ran::of(help.env("ATFLOW_REMOTE", &address).output().unwrap());
    assert!(help.stdout.contains("ATFLOW_REMOTE") && !help.stdout.contains("%20w"), "{}", help.stdout);
}

#[test]
fn a_signature_in_a_query_opens_every_file_and_is_shown_nowhere() {
    let (made, empty) = made_and_empty();
    let server = Server::start(
        made.path().join("cache"),
        Box::new(|asked, to| {
            let is_signed = asked.path.ends_with("?sv=1&sig=a%2Fb%3D");
            if !is_signed {
                _ = head(to, "401 Unauthorized", "Content-Length: 0");
            }
            !is_signed
        }),
    );
    let ran = empty.run(&["run", "p.yaml", "a", "--remote", &format!("{}?sv=1&sig=a%2Fb%3D", server.url)]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stderr.contains("nothing to do"), "{}", ran.stderr);
    let wrong = empty.run(&["run", "p.yaml", "--json", "--remote", &format!("{}?sv=1&sig=hunter2", server.url)]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.seen());
    assert!(wrong.stderr.contains("/atflow/VERSION?***: the server answered 401"), "{}", wrong.stderr);
    assert!(!said_and_kept(&empty, &wrong).contains("hunter2"));
}

#[test]
fn another_server_is_not_told_what_opens_this_one() {
    let (made, empty) = made_and_empty();
    let other = Server::start(made.path().join("cache"), Box::new(|_, _| false));
    let to = other.url.clone();
    let first = Server::start(
        made.path().join("cache"),
        Box::new(move |asked, stream| {
            // Within the server, and then to the other one.
            let to = match asked.path.strip_prefix("moved/") {
                Some(path) => format!("{to}/{path}"),
                None => format!("/atflow/moved/{}", asked.path),
            };
            _ = head(stream, "307 Temporary Redirect", &format!("Location: {to}\r\nContent-Length: 0"));
            true
        }),
    );
    let ran = empty.run(&["run", "p.yaml", "a", "--remote", &with("u:p", &first.url)]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let authorizations = |server: &Server| -> Vec<bool> {
        server.asked.lock().unwrap().iter().map(|asked| asked.header("authorization").is_some()).collect()
    };
    assert!(authorizations(&first).iter().all(|is_told| *is_told));
    assert!(!other.paths().is_empty() && authorizations(&other).iter().all(|is_told| !is_told));
}

#[test]
fn secrets_in_the_addresses_of_data_are_shown_nowhere() {
    let space = Space::new();
    let server = Server::start(space.path().join("nothing"), Box::new(|_, _| false));
    let data = format!("{}/data.bin?X-Amz-Signature=hunter2", with("u:hunter2", &server.url));
    let stage = |url: &str| {
        let sha256 = "0".repeat(64);
        format!(
            "params: {{host: none}}\nstages:\n  a: {{kind: file, with: {{source: {{url: '{url}', mirrors: ['{url}&b'], sha256: '{sha256}'}}}}}}\n"
        )
    };
    for text in [stage(&data), stage(&data.replace("http", "ftp")), stage(&data.replace("localhost", "local host"))] {
        space.write("p.yaml", text);
        for args in [
            &["run", "p.yaml", "-v"][..],
            &["run", "p.yaml", "--json"],
            &["plan", "p.yaml"],
            &["show", "a"],
            &["log", "a"],
        ] {
            let set = if args[0] == "run" { &["--set", "host=https://u:hunter2@h/?sig=hunter2"][..] } else { &[] };
            let ran = space.run(&[args, set].concat());
            let text = said_and_kept(&space, &ran);
            assert!(!text.contains("hunter2"), "{args:?}: {text}");
        }
    }
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked.iter().any(|asked| asked.path.contains("Signature=hunter2")), "it was asked with: {asked:?}");
}

#[test]
fn secrets_in_the_text_of_a_command_are_not_told_where_it_is_explained() {
    let space = Space::new();
    let stage = |password: &str| {
        let run = format!("echo https://u:{password}@host/?k={password} > ${{out.n}}");
        format!("stages: {{a: {{kind: command, with: {{run: '{run}', outputs: {{n: n}}}}}}}}")
    };
    space.write("p.yaml", stage("hunter1"));
    space.ran(&[]);
    assert_eq!(space.run(&["plan", "p.yaml", "--save", "plan.json"]).code, Some(0));
    space.write("p.yaml", stage("hunter2"));
    for args in [
        &["plan", "p.yaml"][..],
        &["plan", "p.yaml", "--json"],
        &["why", "p.yaml", "a"],
        &["why", "p.yaml", "a", "--json"],
        &["show", "a"],
        &["run", "--plan", "plan.json"],
        &["run", "p.yaml"],
    ] {
        let ran = space.run(args);
        assert!(!ran.seen().contains("hunter"), "{args:?}: {}", ran.seen());
        assert!(ran.code.is_some_and(|code| code == 0 || args.contains(&"plan.json")), "{args:?}: {}", ran.seen());
    }
}

/// Certificates of a server, and how often somebody began to talk to it.
struct Encrypted {
    server: Server,
    pem: PathBuf,
}

fn encrypted(made: &Space, answer: Box<Answer>) -> Encrypted {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pem = made.write("server.pem", cert.pem());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap());
    let greet: Box<Greet> = Box::new(move |mut socket: TcpStream| {
        let mut connection = ServerConnection::new(config.clone()).unwrap();
        connection.complete_io(&mut socket).ok()?;
        Some(Box::new(StreamOwned::new(connection, socket)) as Box<dyn Stream>)
    });
    Encrypted { server: Server::greeting("https", made.path().join("cache"), answer, greet), pem }
}

fn run_with(space: &Space, url: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = space.command(&["run", "p.yaml", "a", "--remote", url]);
    command.envs(variables.iter().copied());
    Ran::of(command.output().unwrap())
}

#[test]
fn certificates_that_a_variable_names_are_trusted_and_others_are_refused_once() {
    let (made, empty) = made_and_empty();
    let Encrypted { server, pem } = encrypted(&made, Box::new(|_, _| false));
    let pem = pem.to_str().unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    let (other, none) = (made.write("other.pem", other), made.path().join("none.pem"));
    for (variables, words) in [
        (&[][..], "of an authority that is not trusted here"),
        (&[("SSL_CERT_FILE", other.to_str().unwrap())], "Trusted are 1 of SSL_CERT_FILE="),
        (&[("SSL_CERT_FILE", none.to_str().unwrap())], "Trusted are none, by SSL_CERT_FILE="),
    ] {
        let before = server.connections.load(Ordering::SeqCst);
        let ran = run_with(&empty, &server.url, variables);
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        let line = ran.stderr.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" ");
        for words in [words, "the variable SSL_CERT_FILE names"] {
            assert!(line.contains(words), "{words}: {line}");
        }
        assert_eq!(server.connections.load(Ordering::SeqCst) - before, 1, "asked once");
    }
    let ran = run_with(&empty, &server.url, &[("SSL_CERT_FILE", pem)]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stderr.contains("nothing to do"), "{}", ran.stderr);
    // By another name it is another server.
    let ran = run_with(&empty, &server.url.replace("localhost", "127.0.0.1"), &[("SSL_CERT_FILE", pem)]);
    assert!(ran.stderr.contains("its certificate is that of another server"), "{}", ran.seen());
    // A bucket's server is one like any other.
    let before = server.connections.load(Ordering::SeqCst);
    let endpoint = server.url.trim_end_matches("/atflow").to_owned();
    let bucket =
        [("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
    let ran = run_with(&empty, "s3://lab", &bucket);
    assert!(ran.code == Some(2) && ran.stderr.contains("UnknownIssuer"), "{}", ran.seen());
    assert_eq!(server.connections.load(Ordering::SeqCst) - before, 1, "asked once");
}

#[test]
fn nobody_is_sent_from_an_encrypted_server_to_one_that_is_not() {
    let (made, empty) = made_and_empty();
    let plain = Server::start(made.path().join("cache"), Box::new(|_, _| false));
    let to = plain.url.clone();
    let sends: Box<Answer> = Box::new(move |asked, stream| {
        _ = head(stream, "302 Found", &format!("Location: {to}/{}\r\nContent-Length: 0", asked.path));
        true
    });
    let Encrypted { server, pem } = encrypted(&made, sends);
    let ran = run_with(&empty, &server.url, &[("SSL_CERT_FILE", pem.to_str().unwrap())]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("from https:// to http://"), "{}", ran.stderr);
    assert!(plain.paths().is_empty());
}

/// A proxy that lets connections through; tells what it was asked for.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (asked, count) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicU64>::default());
    let (log, counted) = (asked.clone(), count.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            let lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
            let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let to = lines[0].split(' ').nth(1).unwrap().to_owned();
            log.lock().unwrap().extend(lines);
            let server = TcpStream::connect(to).unwrap();
            let mut greeted = client.try_clone().unwrap();
            greeted.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                std::thread::spawn(move || {
                    _ = std::io::copy(&mut from, &mut to);
                    _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (address, asked, count)
}

#[test]
fn a_proxy_is_asked_for_its_scheme_but_for_hosts_that_need_none() {
    let (made, empty) = made_and_empty();
    let Encrypted { server, pem } = encrypted(&made, Box::new(|_, _| false));
    let (address, asked, count) = proxy();
    let address = address.replace("://", "://u:p%20w@");
    let (pem, trusted) = (pem.to_str().unwrap(), "SSL_CERT_FILE");
    let ran = run_with(&empty, &server.url, &[(trusted, pem), ("HTTPS_PROXY", &address)]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let lines = asked.lock().unwrap().join("\n").to_lowercase();
    let host = server.url.trim_start_matches("https://").trim_end_matches("/atflow");
    assert!(lines.contains(&format!("connect {host} http/1.1")) && lines.contains("proxy-authorization"), "{lines}");
    let before = count.load(Ordering::SeqCst);
    for variables in [
        [(trusted, pem), ("HTTPS_PROXY", address.as_str()), ("NO_PROXY", "example.org, localhost")],
        [(trusted, pem), ("http_proxy", address.as_str()), ("all_proxy", "")],
    ] {
        let ran = run_with(&empty, &server.url, &variables);
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
    }
    assert_eq!(count.load(Ordering::SeqCst), before);
}
