//! Who is let in before anything of a call is read? A call's message is taken into memory whole before its handler sees it, so whoever
//! shows no token is told so by the headers alone.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    codegen::{
        BoxFuture, Service,
        http::{Request, Response, header::AUTHORIZATION},
    },
    server::NamedService,
};

use super::{auth, conn::Peer, status};
use crate::server::users::Users;

/// Stands before a service: every call that comes to it has its [`auth::Caller`] with it.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    users: Arc<Users>,
}

impl<S> Guard<S> {
    /// Stands before `inner`.
    pub fn new(inner: S, users: Arc<Users>) -> Self {
        Self { inner, users }
    }
}

impl<S: NamedService> NamedService for Guard<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // It is this one that has said it is ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let users = self.users.clone();
        Box::pin(async move {
            let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            match auth::caller(&users, header.as_deref()).await {
                Ok(caller) => {
                    if let Some(peer) = request.extensions().get::<Peer>() {
                        peer.is_known();
                    }
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(failure) => Ok(status::of(&failure).into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use weir_pipelines::server::Sql;

    use super::*;
    use crate::server::stand::Stand;

    /// Notes whose calls come to it.
    #[derive(Clone, Default)]
    struct Behind(Arc<Mutex<Vec<String>>>);

    impl Service<Request<Body>> for Behind {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let caller = request.extensions().get::<auth::Caller>().expect("it is let in with its name");
            self.0.lock().expect("whole").push(caller.who.user.clone());
            Box::pin(async { Ok(Response::new(Body::empty())) })
        }
    }

    #[tokio::test]
    async fn a_call_without_a_token_that_opens_sql_is_refused_by_its_headers() {
        let behind = Behind::default();
        let mut guard = Guard::new(behind.clone(), Arc::new(Users::new(Arc::new(Stand::default()), Sql::default())));
        for (header, status) in [
            (None, Some("16")),
            (Some("Bearer weir_wrong"), Some("16")),
            (Some("Digest x"), Some("16")),
            (Some("Bearer weir_old"), Some("7")),
            (Some("Bearer weir_reader"), None),
        ] {
            let mut request = Request::new(Body::empty());
            if let Some(header) = header {
                request.headers_mut().insert(AUTHORIZATION, header.parse().expect("a header"));
            }
            let answer = guard.call(request).await.expect("answered");
            let said = answer.headers().get("grpc-status").and_then(|value| value.to_str().ok());
            assert_eq!(said, status, "{header:?}");
        }
        assert_eq!(*behind.0.lock().expect("whole"), ["reader"]);
    }
}
