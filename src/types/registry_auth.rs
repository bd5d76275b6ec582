use super::Secret;

/// What a registry is shown so that it lets us pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// A user name and a password.
    Basic {
        /// The user's name.
        username: String,
        /// The password or token.
        password: Secret<String>,
    },
    /// An OAuth2 refresh token.
    IdentityToken(Secret<String>),
}
