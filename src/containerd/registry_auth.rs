use k8s_cri::v1::AuthConfig;

use crate::types::Secret;

/// What a registry is shown by containerd on our behalf.
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

impl RegistryAuth {
    /// In CRI's words. The server's address stays empty, as the kubelet leaves it: a mirror in hosts.toml is shown
    /// the credentials too.
    pub(super) fn to_cri(&self) -> AuthConfig {
        match self {
            Self::Basic { username, password } => AuthConfig {
                username: username.clone(),
                password: password.reveal().clone(),
                ..AuthConfig::default()
            },
            Self::IdentityToken(token) => {
                AuthConfig { identity_token: token.reveal().clone(), ..AuthConfig::default() }
            }
        }
    }
}
