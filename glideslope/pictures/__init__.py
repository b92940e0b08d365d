"""What picture files hold beside their pixels: containers, orientation, colour profiles. `decode` is the one door to them."""
