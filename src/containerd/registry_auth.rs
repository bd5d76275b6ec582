use k8s_cri::v1::AuthConfig;

use crate::types::RegistryAuth;

/// In CRI's words. The server's address stays empty, as the kubelet leaves it: a mirror in hosts.toml is shown the
/// credentials too.
pub(super) fn to_cri(auth: &RegistryAuth) -> AuthConfig {
    match auth {
        RegistryAuth::Basic { username, password } => AuthConfig {
            username: username.clone(),
            password: password.reveal().clone(),
            ..AuthConfig::default()
        },
        RegistryAuth::IdentityToken(token) => {
            AuthConfig { identity_token: token.reveal().clone(), ..AuthConfig::default() }
        }
    }
}
