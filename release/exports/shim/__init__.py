"""What a diffusers export holds as code, as modules that `bundle` inlines with what they need; nothing here is imported by glideslope."""
