//! A small HTTP/1 server: /metrics, /healthz, /readyz.
//!
//! On the thread of whoever calls it. So /healthz needs no more than to answer: an agent that hangs
//! does not.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Metrics;

/// Connections at one time: Prometheus twice, the probes, a person.
const CONNECTIONS_MAX: usize = 16;

/// From the first byte of a request to the last of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that a connection lives; Prometheus makes a new one then.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// After an accept that failed, for want of files, say.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Prometheus' text format 0.0.4.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers for ever; only for a current-thread runtime, where it needs no task to be `Send`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_WAIT).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let _permit = permit;
            let answer = service_fn(|request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), &metrics);
                async { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(stream), answer);
            // A client that goes away is its own matter.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
        });
    }
}

fn answer(method: &Method, path: &str, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => match metrics.text() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".into()),
        (&Method::GET | &Method::HEAD, "/readyz") => match metrics.readiness.get() {
            Ok(()) => (StatusCode::OK, "ok\n".into()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".into())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(TEXT));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::super::read::Source;
    use super::super::{AgentMetrics, Readiness};
    use super::*;

    fn metrics(readiness: &Readiness) -> Metrics {
        let source = Source { cache: "/nonexistent".into() };
        Metrics::new(source, Some(&AgentMetrics::default()), readiness.clone())
    }

    #[test]
    fn every_path_has_its_status() {
        let readiness = Readiness::not_yet("the pods are not listed");
        let metrics = metrics(&readiness);
        let status = |method, path| answer(&method, path, &metrics).status().as_u16();
        assert_eq!(status(Method::GET, "/healthz"), 200);
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/"), 404);
        assert_eq!(status(Method::POST, "/metrics"), 405);
        // ready only when somebody says so, and not any more when it is taken back
        assert_eq!(status(Method::GET, "/readyz"), 503);
        readiness.set(Ok(()));
        assert_eq!(status(Method::HEAD, "/readyz"), 200);
        readiness.set(Err("the watch is gone".into()));
        assert_eq!(status(Method::GET, "/readyz"), 503);
    }

    #[test]
    fn what_the_agent_counts_is_told() {
        let agent = AgentMetrics::default();
        let source = Source { cache: "/nonexistent".into() };
        let metrics = Metrics::new(source, Some(&agent), Readiness::not_yet("starting"));
        agent.reconciled(Duration::from_millis(3), true);
        agent.clone().reconciled(Duration::from_secs(2), false);
        let text = metrics.text().unwrap();
        for line in [
            "pod_bandwidth_reconciles_total 2",
            "pod_bandwidth_reconcile_errors_total 1",
            "pod_bandwidth_reconcile_duration_seconds_count 2",
            "pod_bandwidth_reconcile_duration_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
    }

    #[test]
    fn two_requests_go_over_one_real_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let text = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let metrics = Arc::new(metrics(&Readiness::not_yet("starting")));
            let client = tokio::task::spawn_blocking(move || {
                use std::io::{Read, Write};
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                let first = "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
                let last = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                stream.write_all(format!("{first}{last}").as_bytes()).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text
            });
            tokio::select! {
                () = serve(listener, metrics) => unreachable!("it answers for ever"),
                text = client => text.unwrap(),
            }
        });
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable"), "{text}");
        assert!(text.contains("not ready: starting"), "{text}");
        assert!(text.contains("HTTP/1.1 200 OK") && text.contains(TEXT), "{text}");
        assert!(text.contains("# TYPE pod_bandwidth_bytes_total counter"), "{text}");
    }
}
