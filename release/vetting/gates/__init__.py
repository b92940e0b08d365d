"""The gates, each in the file that holds its name, its checks, what the policy demands there, and its line in docs/policy.md."""
