//! Tests that are for both lines of containerd.

/// Each scenario of the module `scenario` on the newer line and on the older one: 2.4 and 1.7, and 2.2 and 1.6 in
/// `make test-matrix`.
macro_rules! on_each_version {
    ($($name:ident)*) => {$(
        mod $name {
            use crate::parts::Version;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_the_newer() { super::scenario::$name(Version::newer()).await }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_the_older() { super::scenario::$name(Version::older()).await }
        }
    )*};
}
pub(crate) use on_each_version;
