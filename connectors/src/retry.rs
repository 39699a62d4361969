//! Trying again: which pauses lie between attempts at what may succeed later. Whether it may is said where the error is made.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Result, Retry};

/// Attempts in all.
const ATTEMPTS: u32 = 6;
/// The first pause is at most this; each later one at most twice the one before.
const PAUSE: Duration = Duration::from_millis(200);
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Does `work` until it succeeds, fails for good, or was tried six times. Pauses grow exponentially with full jitter (about twelve
/// seconds in all at most) and end when `cancel` does. `work` must be safe to repeat.
pub async fn retry<T, W: Future<Output = Result<T>>>(cancel: &CancellationToken, work: impl FnMut() -> W) -> Result<T> {
    retry_after(cancel, PAUSE, work).await
}

async fn retry_after<T, W>(cancel: &CancellationToken, first: Duration, mut work: impl FnMut() -> W) -> Result<T>
where
    W: Future<Output = Result<T>>,
{
    let mut attempt = 1;
    loop {
        let error = match work().await {
            Ok(done) => return Ok(done),
            Err(error) if error.retry == Retry::Never || attempt == ATTEMPTS => return Err(error),
            Err(error) => error,
        };
        tracing::debug!(attempt, error = %error, "trying again");
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(error),
            () = tokio::time::sleep(pause(first, attempt, jitter())) => {}
        }
        attempt += 1;
    }
}

/// The pause after an attempt, for a `share` from 0 up to 1.
fn pause(first: Duration, attempt: u32, share: f64) -> Duration {
    let most = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(PAUSE_MAX);
    most.mul_f64(share)
}

/// From 0 up to 1; the random part of a UUID is random enough.
#[expect(clippy::cast_precision_loss, reason = "a jitter needs no 64 bits")]
fn jitter() -> f64 {
    (uuid::Uuid::now_v7().as_u64_pair().1 << 2 >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn what_may_succeed_later_is_tried_again_and_the_rest_is_not() {
        let cancel = CancellationToken::new();
        let tries = AtomicU32::new(0);
        let done = retry_after(&cancel, Duration::ZERO, || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(Error::system("reset", "connection reset").later()),
                _ => Ok(7),
            }
        });
        assert_eq!(done.await.expect("the fourth"), 7);

        for (error, expected) in [(Error::user("wrong", "no"), 1), (Error::system("reset", "reset").later(), ATTEMPTS)] {
            let (tries, later) = (AtomicU32::new(0), error.retry == Retry::Later);
            let failed = retry_after::<(), _>(&cancel, Duration::ZERO, || async {
                tries.fetch_add(1, Ordering::Relaxed);
                let error = Error::system("any", "any");
                Err(if later { error.later() } else { error })
            });
            assert!(failed.await.is_err());
            assert_eq!(tries.load(Ordering::Relaxed), expected);
        }
    }

    #[tokio::test]
    async fn nobody_waits_once_cancelled() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        assert!(retry::<(), _>(&cancel, || async { Err(Error::system("any", "any").later()) }).await.is_err());
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(pause(PAUSE, 1, 1.0), PAUSE);
        assert_eq!(pause(PAUSE, 3, 0.5), PAUSE * 2);
        assert_eq!(pause(PAUSE, 60, 1.0), PAUSE_MAX);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&jitter())));
    }
}
